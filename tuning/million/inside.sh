#!/bin/sh
# The proof itself, on a machine that is fit for it: inside.sh DIRECTORY RESULT.
#
# DIRECTORY has `parameters`, `data` (a store with users) and `users` (their tokens). Lines of
# KEY=VALUE go to RESULT; the last is holds=yes, or failed=REASON.
set -eu
directory=$1 result=$2
# shellcheck disable=SC1091 # written by run
. "$directory/parameters"
began=$(date +%s)
phase=start
server= running=

elapsed() { echo $(($(date +%s) - began)); }
say() { printf '%6s s  %s: %s\n' "$(elapsed)" "$phase" "$1"; }
put() { echo "$1=$2" >>"$result"; }
fail() {
    say "FAILED: $1"
    put failed "$phase, after $(elapsed) s: $1"
    exit 1
}
begin() {
    phase=$1
    say "begins"
}
# What was started here ends here, and is gone then: but for a machine that is switched off anyway.
stop() {
    for child in $running $server; do kill "$child" 2>/dev/null || :; done
    [ "$end" = off ] || wait
}
trap stop EXIT
trap 'exit 130' INT TERM

# bounded COMMAND...: ends with the time of the whole.
left() {
    left_s=$((limit_s - $(elapsed)))
    [ $left_s -gt 0 ] || fail "the time is up"
}
bounded() {
    left
    # Beside this shell, which could not hear of its own end before it came back.
    timeout "$left_s" "$@" &
    running=$!
    wait $running || { running= && return 1; }
    running=
}
# Sockets of the whole machine.
sockets() { awk '/^TCP:/ { print $3 }' /proc/net/sockstat; }
# number FILE NAME: the first value of that name in a JSON file.
number() { sed -n "s/.*\"$2\":\(-\{0,1\}[0-9.]*\).*/\1/p" "$1" | head -n 1; }
calculate() { awk "BEGIN { printf \"%.0f\", $1 }"; }

begin "limits"
limit=$(ulimit -Hn)
if [ "$limit" != unlimited ]; then
    [ "$limit" -gt $((connections + 1000)) ] ||
        fail "a process may open $limit files, $((connections + 1000)) are needed: see tuning/README.md"
fi
ulimit -n "$limit"
put kernel "$(uname -r)"
put processors "$(grep -c ^processor /proc/cpuinfo)"
put memory_kib "$(awk '/MemTotal/ { print $2 }' /proc/meminfo)"
put sysctls "$(for name in fs.nr_open fs.file-max net.core.somaxconn net.ipv4.tcp_mem; do
    printf '%s = %s; ' $name "$(tr '\t' ' ' <"/proc/sys/$(echo $name | tr . /)")"
done)"

begin "bare holder (Y1)"
bounded starling-bench yardstick idle --connections "$yardstick" --seconds $((quiet < 5 ? quiet : 5)) --split --json \
    >"$directory/idle.json" || fail "the bare holder"
both=$(number "$directory/idle.json" slab_bytes_per_connection)
client=$(number "$directory/idle.json" client_slab_bytes_per_connection)
[ -n "$both" ] && [ -n "$client" ] || fail "no figures of the bare holder"
say "$(calculate "$both") B of kernel slab a connection, $(calculate "$client") B of it at the end that connects"
put idle_connections "$yardstick"
put idle_slab "$both"
put idle_slab_client "$client"
put idle_user "$(number "$directory/idle.json" pss_bytes_per_connection)"

begin "server"
sockets=$(sockets)
starling-server --data "$directory/data" --listen "$listen" --heartbeat-s "$heartbeat" \
    ${shards:+--shards "$shards"} >"$directory/ready" 2>"$directory/server.log" &
server=$!
tries=600
until grep -q ready "$directory/ready"; do
    tries=$((tries - 1))
    [ $tries -gt 0 ] && kill -0 $server 2>/dev/null ||
        { tail -n 20 "$directory/server.log" && fail "the server does not start"; }
    sleep 0.2
done
address=$(sed -n 's/.* ready on \([^,]*\),.*/\1/p' "$directory/ready")
say "$(cat "$directory/ready")"
put server "$(cat "$directory/ready")"

begin "crowd"
few=$((connections / 20))
[ $few -lt 1000 ] || few=1000
# The kernel tells root how much each kind of object takes; looked at before, and when all are held.
slabs() { cat /proc/slabinfo >"$directory/slabs-$1" 2>/dev/null || :; }
slabs before
left
{
    timeout "$left_s" $tool_on starling-bench hold --server "$address" --operator-key "$directory/data/operator.key" \
        --users "$directory/users" --server-pid $server --connections "$connections" \
        --report-at $few --seconds "$quiet" --login-rate search --progress 10 \
        --heartbeat-min "$heartbeat" --heartbeat-max "$heartbeat" --until-beaten --cut-every 100 \
        --json >"$directory/hold.json" || :
    touch "$directory/crowd-ended"
} 2>&1 | while read -r line; do
    echo "         $line"
    case $line in
    *"a heartbeat of each: begins") slabs held ;;
    esac
done &
crowd=$!
# The report is one line, and comes before the crowd's connections are let go.
reported() { [ "$(tail -c 1 "$directory/hold.json" 2>/dev/null | wc -l)" -eq 1 ]; }
until reported || [ -e "$directory/crowd-ended" ]; do sleep 1; done
reported ||
    { tail -n 5 "$directory/server.log" && tail -c 2000 "$directory/hold.json" && fail "the crowd"; }
# Name, objects, and pages: what each kind came to, a connection.
[ ! -s "$directory/slabs-held" ] || awk -v connections="$connections" '
    FNR > 2 { bytes = $15 * $6 * 4096 }
    FNR > 2 && FILENAME ~ /before$/ { before[$1] = bytes }
    FNR > 2 && FILENAME ~ /held$/ {
        each = (bytes - before[$1]) / connections
        if (each >= 16) printf "part=| %s | %d | %.0f |\n", $1, $4, each
    }' "$directory/slabs-before" "$directory/slabs-held" | sort -t '|' -k 4 -rn >>"$result"

begin "check"
for name in messages duplicates corrupt gaps beats beaten cut; do
    value=$(number "$directory/hold.json" $name)
    put $name "$value"
    eval "$name=$value"
done
# shellcheck disable=SC2154 # set by the loop above
{
    [ "$cut" -eq $(((connections + 99) / 100)) ] || fail "$cut were cut off and came back"
    [ "$messages" -eq $((connections + cut)) ] || fail "$messages messages arrived"
    [ $((duplicates + corrupt + gaps)) -eq 0 ] || fail "duplicates, damage or gaps"
    [ "$beaten" -eq "$connections" ] || fail "$beaten had a heartbeat answered"
}
if [ "$end" = orderly ]; then
    begin "end"
    wait $crowd
    # The server has as many ends of connections to see before it can end in its few seconds.
    tries=300
    while [ "$(sockets)" -gt $((sockets + 1000)) ] && [ $tries -gt 0 ]; do
        tries=$((tries - 1))
        sleep 1
    done
    kill -TERM $server
    wait $server || { tail -n 5 "$directory/server.log" && fail "the server did not end well"; }
fi
server=

slab=$(number "$directory/hold.json" slab_bytes_per_connection)
put slab "$slab"
put kernel_all "$(number "$directory/hold.json" kernel_bytes_per_connection)"
put user "$(number "$directory/hold.json" server_pss_bytes_per_connection)"
put user_own "$(number "$directory/hold.json" server_own_bytes_per_connection)"
put login_p99_us "$(number "$directory/hold.json" p99_us)"
put seconds "$(elapsed)"
put holds yes
say "all of it holds"
