# Everything a newcomer needs: `make demo` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help
CARGO ?= cargo
ARGS ?=
ROW ?=
MINUTES ?= 2
QUICK ?=

.PHONY: help demo build test tools sanity cluster faults soak check release bench bench-memory bench-rotation bench-sidecar clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

build: ## build every binary (development profile)
	@$(CARGO) build --locked --workspace --bins

demo: build ## deliver a pod's secrets here and now; ARGS="--sidecar", ARGS="--once", ARGS="--once --json"
	@target/debug/sotto-dev demo $(ARGS)

tools: ## install the real OpenBao server that the tests run against into .tools
	@tests/tools/install-bao

test: tools build ## unit, property and end-to-end tests, the latter against a real OpenBao
	@set -o pipefail; tests/tools/with-mounts $(CARGO) test --locked --workspace --no-fail-fast 2>&1 | tests/tools/sum-results

sanity: build ## the CSI specification's own conformance suite against sotto-csi
	@tests/tools/install-csi-sanity
	@tests/tools/with-mounts tests/tools/sanity

cluster: tools release ## node and sidecar mode on a real Kubernetes on this machine, as root; see tests/cluster
	@tests/cluster/run

faults: tools build ## every fault and promise with real processes, as a table; ROW="3 6b", DURATION=60
	@tests/tools/with-mounts $(CARGO) test --quiet --locked -p sotto-tests --test faults -- $(if $(ROW),$(ROW:%=--row=%),--all)

soak: tools build ## publish, rotate, kill, unpublish at random; nothing may grow; MINUTES=30
	@MINUTES=$(MINUTES) tests/tools/with-mounts $(CARGO) bench --quiet --locked -p sotto-tests --bench soak --profile dev

check: ## format, lints, documentation, architecture, licences and advisories
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps --document-private-items
	$(CARGO) test --locked -p sotto-tests --test architecture
	@tests/tools/check-dependencies
	@tests/tools/check-manifests
	@tests/tools/check-policies

release: ## build what ships, each binary by itself as the images do
	$(CARGO) build --locked --release -p sotto-csi --bin sotto-csi
	$(CARGO) build --locked --release -p sotto-node --bin sotto-node
	$(CARGO) build --locked --release -p sotto-sidecar --bin sotto-agent
	$(CARGO) build --locked --release -p sotto-webhook --bin sotto-webhook

bench: tools release ## Sotto beside its peers, as README.md shows it; QUICK=1 in five minutes, ROW="files publish"
	@SOTTO_BINARIES=$(CURDIR)/target/release tests/tools/with-mounts $(CARGO) bench --locked -p sotto-tests --bench bench --profile ci -- $(if $(QUICK),--quick) $(ROW:%=--row=%)

bench-memory: ## resident memory, threads and fds of sotto-node (supervisor and worker) at 10, 100 and 250 volumes
	$(CARGO) build --locked --workspace --bins --profile ci
	@tests/tools/with-mounts $(CARGO) bench --locked -p sotto-tests --bench node_memory --profile ci

bench-rotation: ## the rows of `make bench` that are about rotation
	@$(MAKE) --no-print-directory bench ROW=rotation

bench-sidecar: ## the rows of `make bench` that are about the sidecar
	@$(MAKE) --no-print-directory bench ROW="sidecar memory"

clean: ## remove what was built and the tools
	$(CARGO) clean
	rm -rf .tools
