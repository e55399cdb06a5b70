#!/bin/sh
# Copies the workspace's commands from the target directory to a folder (first argument).
set -eu
mkdir -p "$1"
for command in starling-server starling starling-bench starling-check starling-sim; do
    # Replaced, not overwritten, so that a running command keeps its file.
    cp "$CARGO_TARGET_DIR/release/$command" "$1/.$command.new"
    mv "$1/.$command.new" "$1/$command"
done
