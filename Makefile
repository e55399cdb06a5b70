# make run     build every command into ./bin and run the server
# make build   build every command into ./bin
# make test    all that must hold: format, lints, fuzzing, tests (licences and crate edges too)
# make fuzz    what strangers, people and broken disks write, FUZZ_SECONDS for each of five targets
# make simulate  the cases that ever failed, and SIM_SECONDS of fresh seeds of the simulation
# make counts  instructions of codec, engine, mesh and sequencer: 5 % more than recorded is red
# make models  the mesh between shards in every order (loom)
# make manual  shell completions and man pages into ./bin/manual
# make faults  kill the server five hundred times, step its clock, take disk, memory and files from it,
#              let devices come and go a hundred thousand events long
# make power   cut the power under the server, fifty times, in a virtual machine (some 20 minutes)
# make damage  damage files of stores, five thousand times; STARLING_SEED repeats a run
# make bench   the benchmarks of codec, engine, storage, mesh and check
#
# The build lives outside the checkout, because RocksDB takes some 15 minutes to compile
# and should do so once. Run and tests share the release profile for the same reason.

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)
export CARGO_TARGET_DIR ?= $(CACHE)/starling/target
CARGO ?= cargo
FUZZ_SECONDS ?= 20
# How long fresh seeds are simulated, by hand and among the tests.
SIM_SECONDS ?= 30
TEST_SIM_SECONDS ?= 300
SIM_STEPS ?= 10000

# Crates that build and are tested without their default features, so without RocksDB.
LEAN := $(addprefix --package starling-,codec engine storage client)

.PHONY: build run test manual bench faults power damage prepare fuzz models kept simulate counts

build: prepare
	$(CARGO) build --release --workspace --locked
	./xtask/collect.sh bin

run: build
	./bin/starling-server $(ARGS)

test: prepare
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml --check
	$(CARGO) fmt --manifest-path counts/Cargo.toml --check
	$(CARGO) fmt --manifest-path server/models/Cargo.toml --check
	$(CARGO) clippy --release --workspace --all-targets --locked -- -D warnings
	$(MAKE) --no-print-directory fuzz
	$(CARGO) test --release --locked --no-default-features $(LEAN)
	$(CARGO) test --release --locked --workspace
	$(CARGO) test --release --locked --package starling-sim --features planted-faults --test planted
	$(MAKE) --no-print-directory simulate SIM_SECONDS=$(TEST_SIM_SECONDS)
	$(MAKE) --no-print-directory models
	$(MAKE) --no-print-directory counts

# Every order of what threads do in the mesh (loom); builds nothing of the server.
models: prepare
	./server/models/run.sh

# All cases that ever failed.
kept: prepare
	$(CARGO) run --release --locked --package starling-sim -- kept

# Those, then seeds that nobody ran before. The log has the first seed, and of one that fails the
# command that runs it again.
simulate: kept
	$(CARGO) run --release --locked --package starling-sim -- run --fresh --seeds 1000000 --steps $(SIM_STEPS) --seconds $(SIM_SECONDS)

# Frames, the engine's states, settings, rows and logs, each for so long; FUZZ_SECONDS=3600 takes
# five hours. With a nightly toolchain under AddressSanitizer.
fuzz: prepare
	./fuzz/run.sh $(FUZZ_SECONDS)

# Instructions of what every message pays for, against counts/recorded.txt; RECORD=1 writes it anew.
counts: prepare
	./counts/run.sh

manual: build
	$(CARGO) xtask manual bin/manual

# What takes long or needs a library; the rest of these tests is in `make test`.
faults: prepare
	./server/tests/faults/prepare.sh
	$(CARGO) test --release --locked --package starling-server --test hard_times --test shortage -- --ignored --nocapture --test-threads=1

# One at a time: the emulator wants the whole machine. STARLING_POWER_CUTS says how many.
power: export STARLING_POWER := $(CACHE)/starling/power
power: prepare
	./server/tests/power/prepare.sh $(STARLING_POWER)
	$(CARGO) test --release --locked --package starling-server --test power_cuts -- --ignored --nocapture --test-threads=1

# STARLING_DAMAGE_RUNS says how many.
damage: export STARLING_DAMAGE_RUNS ?= 5000
damage: prepare
	$(CARGO) test --release --locked --package starling-storage --test damage -- --nocapture

bench: prepare
	$(CARGO) bench --locked --package starling-codec --package starling-engine --package starling-storage --package starling-server --package starling-check

prepare:
	@./xtask/prepare.sh
