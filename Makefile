# rwork: every command a developer, a newcomer or CI needs. `make` alone explains itself.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup plugins build run test lint fmt doc bench chaos fuzz clean

CARGO ?= cargo
RWORK := target/debug/rwork
# The example plugins, built by rwork itself.
PLUGINS := math text images web

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: wasm-target servers ## install what is missing: the wasm32-wasip2 target, and what the tests run against

.PHONY: wasm-target servers
wasm-target:
	@.ci/wasm-target

servers:
	@.ci/servers

build: wasm-target ## build the rwork binary
	$(CARGO) build --locked --workspace --bin rwork

plugins: build ## compile the example plugins to .wasm
	$(RWORK) build $(addprefix plugins/,$(PLUGINS))

run: plugins ## start a worker on the embedded broker and send it sample work (ONCE=1: leave after the results)
	@ONCE=$(ONCE) .ci/demo $(RWORK)

test: setup fmt-check ## install what is missing, then formatting, lints, docs and every test
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps
	$(MAKE) plugins
	$(CARGO) test --locked --workspace

.PHONY: fmt-check
fmt-check:
	$(CARGO) fmt --all --check

lint: fmt-check ## formatting and clippy, warnings as errors
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

fmt: ## format every source
	$(CARGO) fmt --all

doc: ## build the API documentation
	$(CARGO) doc --locked --workspace --no-deps

bench: wasm-target servers ## measure, rwork alone and beside its peers; prints tables and writes bench.json
	$(CARGO) build --locked --release --workspace --bin rwork
	target/release/rwork build --locked --out-dir target/bench tests/fixtures/noop tests/fixtures/hostile
	target/release/rwork bench --plugins target/bench --task noop.noop --spin hostile.spin --polite hostile.polite --json-file bench.json
	$(CARGO) build --locked --release --workspace --manifest-path tests/peers/celery-rs/Cargo.toml --target-dir target/peers
	$(CARGO) bench --locked --workspace --bench peers -- --json-file $(CURDIR)/bench.json

chaos: plugins servers ## the long failure runs: kills, outages, delays, hot reloads, a full disk, simulation with many seeds
	RWORK_CHAOS=full $(CARGO) test --locked --release -p rwork-tests -p rwork-worker -- chaos delayed simulation hot_reload disk_full hostile::output celery::sharing celery::leftovers

FUZZ_SECONDS ?= 60
fuzz: ## fuzz every decoder, FUZZ_SECONDS each (60); a crash ends it and leaves its input in target/fuzz/artifacts
	@.ci/fuzz $(FUZZ_SECONDS)

clean: ## delete what was built
	$(CARGO) clean
	rm -f plugins/*/*.wasm bench.json rwork.db rwork.db-*
