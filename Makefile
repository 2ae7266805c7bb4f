# Two commands, nothing before them:  make demo  (the main job)   make test  (the tests)
.DEFAULT_GOAL := help
VENV := .venv/bin

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup: ## what the main job needs
	@scripts/setup.sh run

setup-dev: ## what the tests need
	@scripts/setup.sh dev

guest: setup ## the guest stack, bit for bit: build/adyton-guest.erofs
	@$(VENV)/adyton devtee build-guest -o build/adyton-guest.erofs

demo: setup guest ## encrypt an image, run it after attestation, see it refused six times
	@$(VENV)/adyton demo

test: setup-dev ## the tests that CI runs
	@$(VENV)/python -m pytest -m 'not slow' -n 2 --dist loadfile

test-all: setup-dev ## every test; fails where the evidence vectors are missing
	@ADYTON_ALL=1 $(VENV)/python -m pytest

lint: setup-dev ## format, lint, types, import contracts
	@$(VENV)/ruff format --check src tests bench fuzz scripts
	@$(VENV)/ruff check src tests bench fuzz scripts
	@$(VENV)/mypy
	@$(VENV)/lint-imports

check: lint ## what every commit passes: lint, and the tests that need no root
	@$(VENV)/python -m pytest -q -m 'not slow and not root' -n 2 --dist loadfile

format: setup-dev ## put the code into its format
	@$(VENV)/ruff format src tests bench fuzz
	@$(VENV)/ruff check --fix-only src tests bench fuzz

dist: setup-dev ## wheel, source archive and bill of materials, the same bytes everywhere: dist/
	@scripts/dist.sh

bench: setup-dev ## every benchmark, as tables
	@for bench in bench/*.py; do $(VENV)/python $$bench || exit 1; done

fuzz: setup-dev ## every fuzz target, 60 s each (FUZZ_SECONDS=N)
	@for target in fuzz/fuzz_*.py; do echo "== $$target"; $(VENV)/python $$target -max_total_time=$${FUZZ_SECONDS:-60} || exit 1; done

lock: setup-dev ## pin the dependencies anew
	@cd requirements && for kind in run dev; do uv pip compile -q --universal --python-version 3.11 --generate-hashes \
		--only-binary :all: --no-emit-index-url --no-header --upgrade $$kind.in -o $$kind.txt || exit 1; done

.PHONY: help setup setup-dev guest demo test test-all lint check format dist bench fuzz lock
