# make install: the environment, .venv/. make demo: everything from nothing to the report. make test: the tests.
# make install TORCH=cpu (or cu126, cu130): with torch and torchvision of that build, of the versions of requirements.lock.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready$(TORCH:%=-%)
BUILDS = $(if $(TORCH),--extra-index-url https://download.pytorch.org/whl/$(TORCH) \
	$(shell sed -nE 's/^torch(vision)?==.*/&+$(TORCH)/p' requirements.lock))
# Stages run `python` and `dvc` by name; these must be the environment's.
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Modules are compiled when they are first imported; where that may not be kept, as in many containers, each start takes 10 s.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install demo test unit pipeline lint docs clean

install: $(READY)

demo: $(READY)
	dvc repro
	@echo
	@cat reports/table.md
	@echo "report: $(CURDIR)/reports/index.html"
	@echo
	@echo 'Changed in git, listed below: to keep this run, git add dvc.lock reports && git commit -m "my run"'
	@git status --short

test: unit pipeline

# Two test workers with one torch thread each; whoever is done takes tests of the other.
PYTEST := python -m pytest --numprocesses 2 --dist worksteal

unit: $(READY)
	$(PYTEST) -m "not pipeline"

# The tests that drive dvc.
pipeline: $(READY)
	$(PYTEST) -m pipeline

lint: $(READY)
	ruff check .
	ruff format --check .
	mypy segsemi stages

# --no-compile: Python compiles a module when it is first imported; most modules of the packages never are.
# The references of some tests lie apart, without their dependencies: pyimgaug asks for the build of OpenCV that needs a
# screen's libraries, cityscapesScripts for a `typing` that hides Python's own.
$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed: make PYTHON=python3.12')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --requirement requirements.lock $(BUILDS)
	$(BIN)/python -m pip install --quiet --no-compile --no-deps --upgrade --target $(VENV)/reference pyimgaug==0.5.0 cityscapesScripts==2.3.0
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	rm -f $(VENV)/.ready*
	touch $(VENV)/.ready $@

# Rewrites docs/params.md, params.schema.json and docs/reference.md.
docs: $(READY)
	python docs/params_page.py
	python docs/reference_page.py

clean:
	rm -rf .pytest_cache .mypy_cache .ruff_cache build *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
