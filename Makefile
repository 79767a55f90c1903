# Granary: `make help` lists what can be done here. Everything is set up on the way (tools/setup).

PREFIX ?= /usr/local
SBINDIR ?= /sbin
STORE ?= file
PEERS ?=
ONLY ?=
OUTPUT ?=
NODES ?=
DURATION ?=
ROUNDS ?= 1000
MINUTES ?= 10
SEED ?=
export PATH := $(PATH):$(HOME)/.cargo/bin

TARGET := $(or $(CARGO_TARGET_DIR),target)
BINARY := $(TARGET)/release/granary

.DEFAULT_GOAL := help
.PHONY: help demo test build install bench check fuzz stress kills soak kube clean setup

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | while IFS="$$(printf '\t')" read -r t d; do printf '  make %-8s  %s\n' "$$t" "$$d"; done

demo: build ## show what Granary does, in a minute; STORE=file|ceph
	@STORE=$(STORE) GRANARY_BIN=$(BINARY) tools/demo

test: ## run every test: units, real mounts, a real Ceph
	@tools/setup build test
	@tools/test

build: setup ## build the release binary
	@tools/cargo build --release -p granary

install: ## put the binary into PREFIX/bin [/usr/local], and mount.fuse.granary into /sbin (after `make build`)
	@test -x $(BINARY) || { echo "install: $(BINARY) is not there: run 'make build' first" >&2; exit 1; }
	install -D -m 755 $(BINARY) $(DESTDIR)$(PREFIX)/bin/granary
	install -d $(DESTDIR)$(SBINDIR)
	ln -sf $(PREFIX)/bin/granary $(DESTDIR)$(SBINDIR)/mount.fuse.granary

bench: setup ## measure beside a fresh ext4; STORE=file|ceph, PEERS=juicefs,s3fs,rclone beside it, ONLY=parts, OUTPUT=folder, NODES=2
	@bench/run --store $(STORE) $(if $(PEERS),--peers $(PEERS)) $(if $(ONLY),--only $(ONLY)) $(if $(OUTPUT),--output $(OUTPUT)) $(if $(NODES),--nodes $(NODES))

check: setup ## format, lints as errors, licences and sources of dependencies
	@tools/check

fuzz: setup ## fuzz every parser; DURATION=seconds for each [30]
	@DURATION=$(DURATION) tools/fuzz

stress: setup ## break a real mount at random; DURATION=seconds [600]
	@DURATION=$(DURATION) tools/test stress

kills: setup ## stop a node at every failpoint and at random moments; ROUNDS=number [1000]
	@ROUNDS=$(ROUNDS) tools/test kills

soak: setup ## random programs amid kills, outages and full disks; MINUTES=number [10], SEED=n repeats one
	@MINUTES=$(MINUTES) SEED=$(SEED) tools/test soak

kube: setup ## install in a real one-node Kubernetes and test what pods see; built once by Go (20 minutes)
	@tools/test kube

clean: ## remove what cargo built here (the cache of tools/rocksdb stays)
	@cargo clean

setup:
	@tools/setup build
