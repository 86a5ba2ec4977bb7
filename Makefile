# Everything a contributor runs. `make help` lists it.
SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Every module of the workspace, as folders; the first is the core.
MODULES = $(shell go list -m -f '{{.Dir}}' | sed 's|^$(CURDIR)|.|')
ONLY ?=
FUZZTIME ?= 20s

.PHONY: help
help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## install what the tests need and this machine lacks, or say what that is
	@tools/setup.sh

.PHONY: test
test: setup ## run all tests of all modules, race detector on
	@tools/test.sh

.PHONY: bench
bench: ## compare with peers; ONLY=core,grpc picks areas; writes bench/latest.json
	@go run ./bench $(if $(ONLY),-only $(ONLY)) -json bench/latest.json

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME each
	@tools/fuzz.sh $(FUZZTIME)

.PHONY: check
check: ## the checks that make test leaves out, but for lint and generated code
	@tools/check.sh

.PHONY: verify
verify: ## check the models in spec/ with a model checker, which needs Node.js and npm
	@tools/verify.sh

.PHONY: lint
lint: ## lint every module (the first run builds the linter, which takes minutes)
	@tools/lint.sh

.PHONY: generate
generate: ## write the code made from api/ and the golden vectors
	@tools/generate.sh
	@go generate ./vectors/...

.PHONY: tidy
tidy: ## tidy every module
	@for module in $(MODULES); do (cd $$module && GOWORK=off go mod tidy); done
