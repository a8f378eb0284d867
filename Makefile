# Everything runs inside .venv, which these commands make. Another Python: make test PYTHON=python3.12
PYTHON ?= python3
BIN = .venv/bin
NEW_ENOUGH = import sys; sys.exit(sys.version_info < (3, 11))
# What CPU=1 adds, in the environment or on the command line: the build of PyTorch without CUDA.
CPU_TORCH = $(if $(CPU),$(BIN)/pip install -q --disable-pip-version-check uv && \
	$(BIN)/uv pip install -q --python $(BIN)/python --torch-backend=cpu torch torchvision)
.PHONY: book zip test lab execute mirror train bench live colab clean

.venv/made:
	@$(PYTHON) -c '$(NEW_ENOUGH)' || { echo "$(PYTHON) is not Python 3.11 or newer: add one that is, as in make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(BIN)/python -c '$(NEW_ENOUGH)' 2>/dev/null || $(PYTHON) -m venv --clear .venv
	touch $@

.venv/book: .venv/made book/requirements.txt
	$(BIN)/pip install -q --disable-pip-version-check -r book/requirements.txt
	touch $@

.venv/lab: .venv/made pyproject.toml
	@echo "This puts PyTorch and JupyterLab into .venv$(if $(CPU),.,: on Linux, with CUDA, some 6 GB. No GPU? make lab CPU=1 takes a small build.)"
	$(CPU_TORCH)
	$(BIN)/pip install -q --disable-pip-version-check -e '.[lab]'
	touch $@

.venv/test: .venv/book pyproject.toml
	$(CPU_TORCH)
	$(BIN)/pip install -q --disable-pip-version-check -e '.[test]'
	touch $@

book: .venv/book  ## build the site from the stored outputs
	$(BIN)/jupyter-book build . -W -n --keep-going -q
	@echo "Open $(CURDIR)/_build/html/index.html"

zip: .venv/book  ## the site with its notebooks in dist/pixel-by-pixel.zip, for reading without a network
	rm -rf build/site dist/pixel-by-pixel.zip
	$(BIN)/jupyter-book build . -W -n --keep-going -q --path-output build/site
	mv build/site/_build/html build/site/pixel-by-pixel
	mkdir -p dist
	$(BIN)/python -m zipfile -c dist/pixel-by-pixel.zip build/site/pixel-by-pixel

test: .venv/test  ## everything that CI runs; CPU=1 as for make lab
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/pytest -q -n 2 --dist loadfile --durations 8 tests

lab: .venv/lab  ## open the notebooks
	$(BIN)/jupyter lab notebooks

execute: .venv/test  ## run all notebooks, or NOTEBOOK=notebooks/..., and store their outputs
	$(BIN)/python tools/book.py execute $(NOTEBOOK)

mirror: .venv/test  ## copy the package's classes into the chapters that build them
	$(BIN)/python tools/book.py mirror

train: .venv/test  ## train the shipped checkpoints anew (some nine hours; may be interrupted and run again)
	$(BIN)/python -m ar_helpers train all --out ar_helpers/checkpoints
	$(BIN)/python tools/book.py samples

bench: .venv/test  ## measure how fast it all is (twenty minutes), or with QUICK=1 only try the benchmarks
	$(BIN)/python benchmarks/data.py $(if $(QUICK),--quick)
	$(BIN)/python benchmarks/training.py $(if $(QUICK),--quick)
	$(BIN)/python benchmarks/generation.py $(if $(QUICK),--quick)
	$(BIN)/python benchmarks/start_up.py $(if $(QUICK),--quick)

live: .venv/test  ## put a model on the live page, CHECKPOINT=... or transformer_small, and score it there
	$(BIN)/python tools/live.py export $(CHECKPOINT)

colab:  ## the quick runs of all chapters with Colab's versions, in .venv-colab: make colab PYTHON=python3.12
	$(PYTHON) -m venv --clear .venv-colab
	.venv-colab/bin/pip install -q --disable-pip-version-check -e '.[test]' 'torch==2.11.*' 'numpy==2.0.*'
	.venv-colab/bin/pytest -q -n 2 tests/test_notebooks.py -k wheel_alone

clean:
	rm -rf _build build dist *.egg-info .pytest_cache .ruff_cache
