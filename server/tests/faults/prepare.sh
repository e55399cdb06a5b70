#!/bin/sh
# What the tests in hard_times.rs need: a library that fakes the time.
set -eu
dpkg -s libfaketime >/dev/null 2>&1 && exit 0
if [ "$(id -u)" -ne 0 ]; then
    echo "first: apt-get install --no-install-recommends libfaketime" >&2
    exit 1
fi
apt-get update
apt-get install --yes --no-install-recommends libfaketime
