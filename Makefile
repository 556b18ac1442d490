# The only words to know: demo, check, test, test-all, bench, docs. Each sets up what it needs in .venv, once; a second run
# starts in seconds. `test` is for every change; `test-all` adds what needs further servers, a cluster or minutes, which is
# what CI runs. Needs Python 3.11+ (with venv). With a C++ compiler steps on the CPU take half the time; PESQ needs a C
# compiler: `bench` asks for one, `test` does without.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL = $(PIP) install --quiet -c constraints.txt
# Recordings for `bench`: a folder with eval/.
SPEECH ?= ../shared/speech
STAMPS := $(VENV)/.stamps

.PHONY: demo test test-all check typing bench docs gpu-report clean
TEST = $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

demo: $(STAMPS)/demo
	$(BIN)/python -m demos.demo

test: $(STAMPS)/dev
	$(TEST) -m "not servers" $(TEST_ARGUMENTS)

test-all: $(STAMPS)/dev
	$(TEST) $(TEST_ARGUMENTS)

check: $(STAMPS)/dev typing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell $$(git ls-files '*.py' '*.md' '*.js' '*.cpp' '*.html')
	$(BIN)/python docs/prose.py
	$(BIN)/mypy

# The package as links to the folders that it is built from, for what reads source and runs nothing: mypy and editors.
typing:
	rm -rf build/typing && mkdir -p build/typing/neucodec_streaming
	ln -s $(addprefix $(CURDIR)/,$(wildcard streaming/*) server client) build/typing/neucodec_streaming

bench: $(STAMPS)/bench
	$(BIN)/python -m benchmarks.latency
	@if [ -d $(SPEECH)/eval ]; then $(BIN)/python -m benchmarks.quality --data $(SPEECH); \
	else echo "no $(SPEECH)/eval: make bench SPEECH=FOLDER measures quality on the recordings in it"; fi

# MODEL: a folder, bundled name or hub id; empty: full size with random weights. Needs a CUDA build of torch and a GPU.
MODEL ?= neuphonic/neucodec
gpu-report: $(STAMPS)/bench
	$(BIN)/python -m benchmarks.gpu_report $(addprefix --model ,$(MODEL))

# The site, in build/site; a broken link or a missing name fails.
docs: $(STAMPS)/docs typing
	$(BIN)/python docs/reference.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

$(STAMPS)/torch: constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) torch
	mkdir -p $(STAMPS) && touch $@

# `-` since without a compiler it goes on.
$(STAMPS)/demo: $(STAMPS)/torch pyproject.toml setup.py
	$(INSTALL) -e '.[server,demo]'
	-$(BIN)/python -m neucodec_streaming.kernels.native
	touch $@

$(STAMPS)/dev: $(STAMPS)/torch pyproject.toml setup.py
	$(INSTALL) -e '.[dev]'
	$(INSTALL) -e '.[bench]' || echo "no C compiler for PESQ: the tests of benchmarks that need it will be skipped"
	-$(BIN)/python -m neucodec_streaming.kernels.native
	touch $@ $(STAMPS)/demo

$(STAMPS)/bench: $(STAMPS)/dev
	$(INSTALL) -e '.[bench,listen]'
	$(INSTALL) --no-deps distillmos resemblyzer xls-r-sqa
	touch $@

$(STAMPS)/docs: $(STAMPS)/dev
	$(INSTALL) -e '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info demo-output .pytest_cache .mypy_cache .ruff_cache .hypothesis
