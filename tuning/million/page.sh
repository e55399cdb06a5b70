#!/bin/sh
# Makes the page of a result: page.sh RESULT VERSIONS CONNECTIONS MACHINE SECONDS ARGUMENTS.
set -eu
get() { sed -n "s/^$1=//p" "$result"; }
round() { awk "BEGIN { printf \"%.0f\", $1 }"; }
# A figure that is smaller than any socket is what else the machine did, not a connection.
shown() { if [ "$1" -ge "$2" ]; then echo "$1"; else echo "hidden by other work of the machine"; fi; }
result=$1 connections=$3
kernel=$(round "$(get slab) - $(get idle_slab_client)")
user=$(round "$(get user)") own=$(round "$(get user_own)")
cat <<END
# $(date -u +%Y-%m-%d): $connections connections, held

    tuning/million/run $6

Machine: $4; Linux $(get kernel), $(get processors) processors, $(($(get memory_kib) / 1024)) MiB.
$(sed 's/^/    /' "$2")

The server's side of a connection, in bytes:

| | a connection |
|---|---|
| kernel (slabs; those of the load tool's end are taken off) | $(shown "$kernel" 1000) |
| user (proportional set size) | $(shown "$user" 100) |
| ... without memtables and block cache | $(shown "$own" 100) |
| **kernel and user** | **$(shown $((kernel + user)) 1100)** |
| the bare holder's side of a connection (Y1), kernel | $(shown "$(round "$(get idle_slab) - $(get idle_slab_client)")" 1000) |
| kernel, both ends on one machine: with Starling, with the bare holder | $(shown "$(round "$(get slab)")" 1000), $(shown "$(round "$(get idle_slab)")" 1000) |
| all that the kernel uses, both ends and both processes | $(shown "$(round "$(get kernel_all)")" 1000) |

Of what the kernel's part is made, both ends of a connection:

| slab | bytes of an object | bytes a connection |
|---|---|---|
$(get part)

What was shown:

| | |
|---|---|
| logged in and held | $connections, and the one that writes to them |
| messages that arrived, one for each and one more for each that was cut off | $(get messages) |
| twice, damaged, out of order or missing | $(($(get duplicates) + $(get corrupt) + $(get gaps))) |
| heartbeats sent; connections that had one answered | $(get beats); $(get beaten) |
| cut off without a word, and back with a message more | $(get cut) |
| time inside, and with preparation | $(get seconds) s, $5 s |

Settings that held: $(get sysctls)
$(get server)
END
case $4 in
virtual*) printf '\nTimes and CPU from emulation mean nothing; memory and correctness do.\n' ;;
*) printf '\nSlabs are those of the whole machine: whatever else it did is in them.\n' ;;
esac
