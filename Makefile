# make setup   a real ComfyUI with tiny models in .sandbox/ (about 6 GB, once)
# make demo    train, merge and draw there with a miniature SDXL, without a window
# make serve   open that ComfyUI in the browser (PORT=8188)
# make test    all tests (ARGS="tests/core -k merge" for some)
# make thorough   what make test leaves out: long tests, more fonts and values
# make lint    style and types
# make thumbnails   draw the workflows' thumbnails, icon and banner; make pictures: those of help and guide (ARGS="-k merge")
# make locales the nodes' English words as the frontend reads them; what other languages lack
# make quality what merges and sliders do on the miniature SDXL: docs/QUALITY.md
# make miniworld   train that miniature SDXL anew (two to three hours; resumes)
# make bench   what merging and training cost, beside others: docs/BENCHMARKS.md (ARGS=--help)
# make card    on a machine with a card: ten minutes of tests and figures, into docs/BENCHMARKS.md
# make reliability   faults, fuzzing, leaks, versions: docs/RELIABILITY.md (ARGS="faults leaks")
# make peaks   peak memory of every trainer on SDXL's shapes, without a card
# make matrix  the tests on other versions of ComfyUI, Python and the frontend (ARGS="comfyui-0.27.0" for one)
# make real_size   SDXL in its full size from a checkpoint file, on the CPU: into docs/BENCHMARKS.md
#
# ZIPLORA_SANDBOX moves .sandbox; COMFYUI_PATH uses an existing ComfyUI, COMFYUI_PYTHON its Python.

export ZIPLORA_SANDBOX := $(abspath $(or $(ZIPLORA_SANDBOX),.sandbox))
ifdef COMFYUI_PATH
export COMFYUI_PATH := $(abspath $(COMFYUI_PATH))
endif
export PORT

PYTHON3 ?= python3
BIN := $(ZIPLORA_SANDBOX)/venv/bin

.PHONY: setup demo serve test thorough lint thumbnails pictures locales bench peaks card quality \
	miniworld reliability matrix real_size

setup:
	@cd tests && $(PYTHON3) -m sandbox.setup

demo: setup
	@cd tests && $(BIN)/python -m sandbox.demo

serve: setup
	@cd tests && $(BIN)/python -m sandbox.serve

# Two processes, each with a ComfyUI of its own, that take one file after the other in the order of
# pyproject.toml; then one that needs the machine for itself, as it watches a training in the page.
# Some tests, named by ARGS, are done sooner in one.
ALONE := tests/browser/test_live_training.py
ALL := -n 2 --dist loadfile --no-loadscope-reorder --ignore=$(ALONE)

# What runs on an accelerator: a pretend one, or with DEVICE=cuda a real card; without either, on the CPU.
TIER := tests/accelerator $(addprefix tests/server/,ziplora/test_exactness.py sliders/test_sliders.py \
	merging/test_tools.py merging/test_find.py unziplora/test_unziplora.py plots/test_look.py plots/test_judge.py) \
	$(addprefix tests/comfy/,model/test_relatives.py model/test_compiled.py train/test_one_sided.py)

HAS_HEADERS := $(PYTHON3) -c 'import os, sysconfig as s, sys; \
	sys.exit(not os.path.exists(s.get_path("include") + "/Python.h"))'

# Not `python -m pytest`: that puts this folder first on the path, and its nodes/ before ComfyUI's.
test: setup
ifdef ARGS
	$(BIN)/pytest $(ARGS)
else
	DEVICE=cpu $(BIN)/pytest $(ALL) $(addprefix --ignore=,$(TIER))
	DEVICE=cpu $(BIN)/pytest $(ALONE)
	@if [ -n "$(DEVICE)" ] || command -v c++ >/dev/null && $(HAS_HEADERS); then \
		DEVICE=$(or $(DEVICE),pretend) $(BIN)/pytest -n 2 --dist loadfile $(TIER); \
	else \
		echo "The pretend card needs a C++ compiler and Python.h: apt-get install g++ python3-dev"; \
		[ -z "$$CI" ] && DEVICE=cpu $(BIN)/pytest -n 2 --dist loadfile $(TIER); \
	fi
endif

thorough: setup
	DEVICE=cpu $(BIN)/pytest -n 2 --dist loadfile -m thorough
	DEVICE=$(or $(DEVICE),pretend) $(BIN)/pytest -n 2 --dist loadfile -m thorough tests/accelerator

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	@cd tests && $(BIN)/python -m sandbox.type_check

thumbnails: setup
	@cd tests && $(BIN)/python -m sandbox.thumbnails && $(BIN)/python -m sandbox.registry_images

pictures: setup
	$(BIN)/pytest -q tests/browser/help_pictures.py $(ARGS)

locales: setup
	@cd tests && $(BIN)/python -m sandbox.locales

bench: setup
	@cd tests && $(BIN)/python -m bench $(ARGS)

peaks: setup
	@cd tests && $(BIN)/python -m card.peaks $(ARGS)

card:
	@cd tests && TIER="$(TIER)" $(or $(COMFYUI_PYTHON),$(BIN)/python) -m card $(ARGS)

matrix: setup
	@cd tests && $(BIN)/python -m sandbox.matrix $(ARGS)

real_size: setup
	@cd tests && DEVICE=cpu $(BIN)/python -m card.real_size $(ARGS)

quality: setup
	@cd tests && $(BIN)/python -m quality $(ARGS)

reliability: setup
	@cd tests && $(BIN)/python -m reliability $(ARGS)

miniworld: setup
	@cd tests && $(BIN)/python -m miniworld
