# Everything runs inside .venv, which these commands make. Another Python: make test PYTHON=python3.12
PYTHON ?= python3
BIN = .venv/bin
.PHONY: book test lab execute mirror train clean

.venv/book: book/requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check -r book/requirements.txt
	touch $@

.venv/test: .venv/book pyproject.toml
	$(BIN)/pip install -q --disable-pip-version-check -e '.[test]'
	touch $@
