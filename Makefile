# Two commands matter: `make book` renders the book, `make test` proves that it is right. `make help` lists the rest.

# Any Python from 3.11 on; PYTHON=... chooses one.
PYTHON ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11 python, \
	$(shell $(p) -c 'import sys; print("$(p)" if sys.version_info >= (3, 11) else "")' 2>/dev/null)))
# Where torch comes from if not from PyPI. On Linux, PyPI's has several gigabytes of CUDA with it; a smaller one:
#     make test TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
JOBS ?= 2

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
SOURCES := $(shell find book notebooks vaekit tools benchmarks CHANGELOG.md CONTRIBUTING.md _config.yml -type f \
	-not -path '*/__pycache__/*' -not -path '*/vendor/*' -not -path '*/.ipynb_checkpoints/*' 2>/dev/null)

.PHONY: help setup book links test lint experiments standalone kills sync benchmarks chapter colab offline slides student teach fork mutants clean
.DELETE_ON_ERROR:

help:
	@echo "make book                                  render the book: _build/html/index.html"
	@echo "make test                                  run every test, notebooks and book included"
	@echo "make lint                                  style and types only"
	@echo "make links                                 check that every link of the book leads somewhere"
	@echo "make experiments CHAPTER=01_vae PROFILE=cpu   run a chapter, store its outputs and results"
	@echo "make standalone CHAPTER=01_vae             run only its exercises, store their outputs"
	@echo "make kills                                 kill work of the store 50 times at random, compare its numbers"
	@echo "make sync                                  bring notebooks/*.ipynb up to their notebooks/*.py"
	@echo "make benchmarks                            time the library beside its peers"
	@echo "make colab                                 run the chapters with the versions that Colab ships"
	@echo "make chapter NAME=08_name TITLE=\"...\"       a new chapter from the template"
	@echo "make offline                               the book as a zip that needs no network: _build/beyond-the-elbo.zip"
	@echo "make slides [PDF=1]                        a deck for each session, no network needed: _build/slides/index.html"
	@echo "make student [SEED=...]                    chapters without solutions, and an nbgrader course: _build/student"
	@echo "make teach [SEED=...] [PDF=1]              the instructor's pack, which is no part of the book: _build/teach"
	@echo "make fork REPO=owner/name                  point badges, launch buttons and set-up cells at a fork"
	@echo "make mutants FILES=vaekit/... N=20         change the library line by line: do the tests notice?"
	@echo "make clean                                 remove what was built (not the environment)"

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python"; exit 1; }
	@test -x $(BIN)/python || { echo "Making $(VENV) with $(PYTHON) ..."; $(PYTHON) -m venv $(VENV); }
	@echo "Installing what the library, the book and the tests need ..."
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-compile \
		--constraint constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) --editable '.[notebook,book,test,teach]'
	@touch $@

book: _build/html/index.html
	@echo "The book: _build/html/index.html"

_build/html/index.html: $(READY) $(SOURCES)
	@$(BIN)/python -m tools.build_book

links: $(READY)
	@$(BIN)/jupyter-book build . --config _config.yml --toc book/_toc.yml --builder linkcheck

# nbval runs the notebooks' cells; everything else is in pyproject.toml. One thread a worker: the workers share the cores.
test: $(READY) lint
	@OMP_NUM_THREADS=1 VAEKIT_PROFILE=smoke $(BIN)/python -m pytest --quiet -n $(JOBS) --dist loadscope \
		--no-loadscope-reorder --nbval-lax --nbval-current-env --nbval-cell-timeout=300 \
		--durations=20 --durations-min=5 notebooks tests vaekit

lint: $(READY)
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary

experiments: $(READY)
	@test -n "$(CHAPTER)" -a -n "$(PROFILE)" || { \
		echo "make experiments CHAPTER=01_vae PROFILE=smoke|cpu|night|gpu|paper [FRESH=1]"; exit 1; }
	@VAEKIT_FRESH=$(FRESH) $(BIN)/python -m tools.execute $(CHAPTER) $(PROFILE)

standalone: $(READY)
	@test -n "$(CHAPTER)" || { echo "make standalone CHAPTER=01_vae"; exit 1; }
	@$(BIN)/python -m tools.execute $(CHAPTER) --standalone

kills: $(READY)
	@OMP_NUM_THREADS=1 VAEKIT_PROFILE=smoke VAEKIT_KILLS=50 $(BIN)/python -m pytest --quiet -s -k killed tests/notebook/test_store.py

sync: $(READY)
	@$(BIN)/python -m tools.notebooks

# The peers (pip install '.[bench]') are optional: a benchmark says which of them it misses.
benchmarks: $(READY)
	@for topic in $(filter-out __init__ timing,$(basename $(notdir $(wildcard benchmarks/*.py)))); do \
		echo "== $$topic"; $(BIN)/python -m benchmarks.$$topic || exit 1; done

colab: $(READY)
	@TORCH_INDEX="$(TORCH_INDEX)" $(BIN)/python -m tools.colab "$(or $(TORCH),torch==2.13.0)"

chapter: $(READY)
	@$(BIN)/python -m tools.new_chapter "$(NAME)" "$(TITLE)"

offline: $(READY)
	@$(BIN)/python -m tools.offline $(OUT)

slides: $(READY)
	@$(BIN)/python -m tools.slides $(if $(PDF),--pdf) $(OUT)

teach: $(READY)
	@$(BIN)/python -m tools.teach --seed "$(SEED)" $(if $(PDF),--pdf) $(OUT)

student: $(READY)
	@$(BIN)/python -m tools.student --seed "$(SEED)" $(OUT)

fork: $(READY)
	@test -n "$(REPO)" || { echo "make fork REPO=owner/name"; exit 1; }
	@$(BIN)/python -m tools.address $(REPO)

mutants: $(READY)
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.mutants $(FILES) -n $(or $(N),20)

clean:
	@rm -rf _build .pytest_cache .ruff_cache .mypy_cache .hypothesis
