# Every target is a script in hack/ or one command; `make help` lists them.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

LIB := . hack/lib.sh

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ See it work
.PHONY: demo demo-down
demo: ## Run Spillway on a local Kubernetes (or on KUBECONFIG's), send messages, show what they cost
	@hack/demo.sh
demo-down: ## Remove everything that the demo made
	@hack/demo-down.sh

##@ Test
.PHONY: test test-unit test-clients test-controllers test-chart test-cluster fuzz lint fmt
test: ## Run everything that must pass; ends with the count
	@hack/test.sh
test-unit: ## Run unit and repository tests, on a throwaway PostgreSQL
	@hack/test.sh unit
test-clients: ## Run the stories of Claude Code and the official SDKs through the real proxy
	@hack/test.sh clients
test-controllers: ## Run the operator's tests against a real API server and PostgreSQL
	@hack/test.sh controllers
test-chart: ## Run the chart's tests against a real API server
	@hack/test.sh chart
test-cluster: ## Run the tests on a whole cluster
	@hack/test.sh cluster
fuzz: ## Fuzz every parser of outside input for a minute each: [SECONDS=…] [TARGETS="…"]
	@hack/fuzz.sh $(or $(SECONDS),60) $(TARGETS)
lint: ## Check formatting, lints, shell scripts, licences and generated files
	@hack/test.sh format shell licences advisories drift sqlx clippy
fmt: ## Format the code
	@$(LIB); cd "$$ROOT"; cargo fmt --all; gofmt -w e2e/cluster

##@ Measure
.PHONY: bench soak
bench: ## Measure the proxy beside nginx on one core; prints a table, writes bench.json
	@hack/bench.sh
soak: ## Load the proxy for MINUTES=30 while everything fails in turn; fails when memory grows or usage is lost
	@hack/soak.sh

##@ Build
.PHONY: build crds publish images cluster-up cluster-down
build: ## Compile all programs
	@$(LIB); cargo_env; cargo build --locked --workspace --bins; echo "in $$BIN_DIR"
crds: ## Write the resource definitions from the Rust types, for the chart as well
	@hack/crds.sh
publish: ## Build production images and push them: REGISTRY=registry.example.com [TAG=…]
	@hack/publish.sh
images: ## Build the container images as OCI archives
	@hack/images.sh operator proxy fake-upstream postgres
cluster-up: ## Start a local Kubernetes and print its kubeconfig
	@$(LIB); cluster_tools; cluster_packages; cluster up
cluster-down: ## End it without a trace
	@$(LIB); cluster_tools; cluster down
