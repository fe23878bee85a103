# helios: what a person types. Each recipe is short; the work is in scripts/.

SHELL       := bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS   += --no-print-directory

# What may be set from outside, as in `make fuzz FUZZTIME=5m PKG=./router`.
PKG      ?= ./...
RUN      ?=
TIMEOUT  ?= 45m
FUZZTIME ?= 30s
BENCH    ?= .
COUNT    ?= 6
DURATION ?= 10s
SOAK     ?= 10m

export PKG RUN TIMEOUT FUZZTIME BENCH COUNT DURATION

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## install PostgreSQL by this machine's package manager, if there is none
	@scripts/setup

.PHONY: build
build: ## compile everything; the binary is bin/helios
	go build ./...
	@if [ -d cmd/helios ] && ls cmd/helios/*.go >/dev/null 2>&1; then go build -o bin/ ./cmd/helios; fi

.PHONY: demo
demo: ## start a cluster on this machine, break it, and watch
	@scripts/setup
	@HELIOS_PG_BIN="$$(scripts/postgres-bin)" go run ./cmd/helios demo

.PHONY: test
test: ## run every test with the race detector (PKG=, RUN=, TIMEOUT=)
	@scripts/test

.PHONY: test-versions
test-versions: ## tell the integration stories to PostgreSQL 13, 17 and 18, and over TLS (VERSIONS=, RUN=, SHORT=no, RACE=yes)
	@scripts/test-versions

.PHONY: test-containers
test-containers: ## test servers in containers; root on Debian gets an engine for it (RUN=)
	@scripts/test-containers

.PHONY: soak
soak: ## let a cluster live for SOAK (10m) with failovers and faults, and report
	@scripts/setup
	@HELIOS_PG_BIN="$$(scripts/postgres-bin)" HELIOS_SOAK=$(SOAK) \
		go test -race -count=1 -v -timeout=0 -run='^TestSoak$$' ./integration_test

.PHONY: check
check: fmt-check tidy vet lint house fuzz-short ## format, tidy, vet, lint, house rules, short fuzz; changes nothing

.PHONY: ci
ci: ## check, test, test-versions and, where CI=true, test-containers; all even if one fails
	@scripts/ci

.PHONY: bench
bench: ## measure next to pgx: Go benchmarks, in memory, on PostgreSQL (PKG=, BENCH=, COUNT=, DURATION=)
	@scripts/bench

.PHONY: fuzz
fuzz: ## fuzz every target for FUZZTIME (30s)
	@scripts/fuzz

.PHONY: lint
lint: ## run golangci-lint (PKG=)
	@"$$(scripts/tools)/golangci-lint" run $(PKG)

.PHONY: fmt
fmt: ## rewrite the sources as gofumpt and goimports want them (PKG=)
	@"$$(scripts/tools)/golangci-lint" fmt $(PKG:%/...=%)

.PHONY: docs
docs: ## rewrite what the documentation takes from the code
	go test -count=1 ./internal/lint/readme -rewrite

.PHONY: fmt-check
fmt-check:
	@"$$(scripts/tools)/golangci-lint" fmt --diff-colored=false --diff || { echo "format: run make fmt" >&2; exit 1; }

.PHONY: tidy
tidy:
	@go mod tidy -diff || { echo "tidy: go.mod or go.sum is not what go mod tidy makes of them" >&2; exit 1; }

.PHONY: vet
vet:
	@go vet ./...

.PHONY: house
house:
	@go test -count=1 ./internal/lint/...

.PHONY: fuzz-short
fuzz-short:
	@FUZZTIME=3s scripts/fuzz
