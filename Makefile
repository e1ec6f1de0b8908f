# The front door: everything here ends in a script or in the `hal` command of .venv.

.DEFAULT_GOAL := help
PROFILE ?= starter
ARTIFACT ?=
BUILDROOT ?=
LINUX ?=
HAL := .venv/bin/hal
PYTEST := .venv/bin/pytest

.PHONY: help
help: ## list what can be made
	@echo 'make TARGET [PROFILE=$(PROFILE)]'
	@sed -n 's/^\([a-z-]*\):.*## /  \1: /p' Makefile | while IFS=: read -r name text; do printf '%-20s%s\n' "$$name" "$$text"; done

.PHONY: image
image: runtime ## build the appliance of PROFILE into build/
	@$(HAL) build $(PROFILE)

.PHONY: boot
boot: runtime ## boot it and say how to talk to it
	@$(HAL) boot $(PROFILE) --wait

.PHONY: up-vllm
up-vllm: runtime ## build and boot vLLM (PROFILE=vllm-gpu: with an NVIDIA GPU)
	@$(HAL) boot $(if $(filter vllm-%,$(PROFILE)),$(PROFILE),vllm-cpu) --wait

.PHONY: up-ollama
up-ollama: runtime ## build and boot Ollama (ARTIFACT=FILE: its release archive on this machine)
	@$(HAL) boot ollama --wait $(if $(ARTIFACT),--artifact 'ollama=$(ARTIFACT)')

.PHONY: test
test: dev ## run the tests but those of vLLM: build the starter image, boot images in QEMU, check them from inside
	@$(HAL) build starter
	$(PYTEST) -m 'not large'

.PHONY: test-large
test-large: dev ## run the tests with vLLM and of fifty power cuts: gigabytes, and tens of minutes without KVM
	@$(HAL) build starter
	$(PYTEST) -m large

.PHONY: test-fast
test-fast: dev ## run the tests that need neither QEMU nor minutes
	$(PYTEST) -m 'not appliance and not slow and not large'

.PHONY: check-buildroot
check-buildroot: dev ## check buildroot-external/ with a tree of Buildroot (BUILDROOT=DIR; LINUX=DIR: a kernel's too)
	@test -n '$(BUILDROOT)' || { echo 'make check-buildroot BUILDROOT=DIR: a tree of Buildroot 2026.02.3' >&2; exit 2; }
	HAL_BUILDROOT='$(BUILDROOT)' HAL_LINUX='$(LINUX)' $(PYTEST) tests/buildroot tests/render/test_external.py

.PHONY: test-buildroot
test-buildroot: dev ## boot and check appliances that Buildroot has made (BUILDROOT=DIR; the first time an hour)
	@test -n '$(BUILDROOT)' || { echo 'make test-buildroot BUILDROOT=DIR: a tree of Buildroot 2026.02.3' >&2; exit 2; }
	HAL_BUILDROOT='$(BUILDROOT)' $(PYTEST) tests/appliance -m 'not large' --base buildroot

.PHONY: lint
lint: dev ## ruff, mypy and shellcheck
	$(PYTEST) -q tests/unit/test_linters.py

.PHONY: bench
bench: dev ## measure cold, warm and configuration-only builds
	scripts/bench_build

.PHONY: bench-gateway
bench-gateway: dev ## measure the gateway beside other proxies (nothing else should run meanwhile)
	scripts/bench_gateway

.PHONY: bench-provision
bench-provision: dev ## measure the provisioner beside curl piped into sha256sum
	scripts/bench_provision

.PHONY: docs
docs: dev ## write what is generated in docs/ anew
	.venv/bin/python scripts/exposure_table

.PHONY: doctor
doctor: runtime ## say what this host lacks and the command that installs it
	@$(HAL) doctor

.PHONY: lock
lock: runtime ## pin Debian packages, wheels and Python packages anew
	scripts/lock_requirements
	$(HAL) lock

.PHONY: clean
clean: ## remove what was built (the cache and .venv stay)
	rm -rf build .pytest_cache .mypy_cache .ruff_cache .hypothesis

.PHONY: runtime
runtime:
	@scripts/bootstrap

.PHONY: dev
dev:
	@scripts/bootstrap --dev
