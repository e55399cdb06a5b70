#!/bin/bash
# Counts the instructions of what every message pays for, and compares with counts/recorded.txt: it
# ends not 0 when something takes 5 % more than it did. Noise cannot move the counts, but another
# compiler or C library can. With RECORD=1 they are written down anew.
#
# Each thing runs twice under Valgrind, once three times as often; what the second run takes more,
# divided by how often more, is what one takes. So starting and setting up do not count.
set -euo pipefail
cd "$(dirname "$0")"

if ! command -v valgrind >/dev/null; then
    if command -v apt-get >/dev/null && [ "$(id -u)" -eq 0 ]; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends valgrind
    else
        echo "NOT COUNTED: valgrind is not here. Type: sudo apt-get install -y valgrind" >&2
        exit 0
    fi
fi
most_growth_percent=5
rounds=${COUNT_ROUNDS:-3200}

target=${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/starling/target}/counts
CARGO_TARGET_DIR="$target" cargo build --release --locked --quiet
counts=$target/release/starling-counts

# Nothing of the environment, as it stands on the stack and moves what lies there.
instructions() {
    env -i valgrind --tool=callgrind --callgrind-out-file=/dev/null "$counts" "$1" "$2" 2>&1 >/dev/null |
        sed -n 's/.*Collected : \([0-9]*\)$/\1/p'
}

new=$(mktemp)
trap 'rm -f "$new"' EXIT
"$counts" | while read -r thing; do
    few=$(instructions "$thing" "$rounds")
    many=$(instructions "$thing" $((3 * rounds)))
    echo "$thing $(((many - few) / (2 * rounds)))"
done >"$new"

if [ -n "${RECORD:-}" ]; then
    cp "$new" recorded.txt
    cat recorded.txt
    exit
fi
awk -v most="$most_growth_percent" '
    NR == FNR { recorded[$1] = $2; next }
    !($1 in recorded) { print $1 ": " $2 ", not recorded yet"; failed = 1; next }
    {
        growth = 100 * ($2 - recorded[$1]) / recorded[$1]
        verdict = growth > most ? "TOO MANY" : growth < -most ? "fewer: record it" : ""
        printf "%-40s %8d recorded %8d %+6.1f %% %s\n", $1, $2, recorded[$1], growth, verdict
        failed = failed || growth > most
        delete recorded[$1]
    }
    END {
        for (thing in recorded) { print thing ": recorded, and counted no more"; failed = 1 }
        if (failed) print "see counts/run.sh; `make counts RECORD=1` if that is as it should be"
        exit failed
    }
' recorded.txt "$new"
