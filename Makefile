# One entry for developers' commands: make test, make lint, make types, make docs, make bench, make torture, make external.
.PHONY: test lint types docs bench torture external

test:  ## the default suite, about 4 minutes on 2 cores
	pytest

lint:
	ruff check .
	ruff format --check .

types:
	mypy
	mypy --strict tests/typing

docs:  ## the pages say what the code does
	pytest tests/unit/test_docs.py tests/unit/test_architecture.py tests/test_examples.py

bench:
	python -m benchmarks --quick

torture:  ## random kills, failing disks, loss of power: about 30 minutes
	pytest -m torture

external:  ## with the packages and servers of others
	pytest -m external
