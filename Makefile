# Two commands are all a new user needs: make demo, make test. Both install what is missing into .venv and say what they do.
.PHONY: help demo test lint bench lock clean
PYTEST_ARGS ?=

help: ## What can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: ## The main job on real mail, then on a real folder, each in a home of its own: proves each step and ends with a table (DEMO_ARGS="--mail MBOX", DEMO_FILES=FOLDER)
	@scripts/setup run
	@.venv/bin/keystead demo $(DEMO_ARGS)
	@.venv/bin/keystead demo --home demo-files --files "$(or $(DEMO_FILES),$(wildcard .venv/lib/python*/site-packages/sqlalchemy))"

test: ## All tests
	@scripts/setup dev
	@scripts/setup-tools
	.venv/bin/pytest -n auto --dist loadgroup $(PYTEST_ARGS)

lint: ## Formatting, lint rules, types, import directions, generated documents
	@scripts/setup dev
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/python scripts/make-reference --check
	.venv/bin/python scripts/make-cli-docs --check
	.venv/bin/python scripts/make-openapi --check

bench: ## Measure speed side by side with other programs; writes docs/performance.md (never run in CI)
	@scripts/bench

lock: ## Resolve dependencies anew into requirements/*.lock
	@scripts/lock

clean: ## Remove what setup and tests made
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
