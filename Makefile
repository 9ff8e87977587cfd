# make demo          set up, train a small YOLOv5-SPD from scratch, evaluate, detect, export
# make test          set up, every test but the very long ones
# make test-isa      the tests of numbers again, as on processors with SSE4.1 only (1 thread) and AVX2 (2 threads)
# make check         ruff, mypy, fast tests: before every commit
# make acceptance    the very long tests
# VENV=path          use an environment that is there
# TEST_PROCESSES=N   how many run tests side by side (2)

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# bf16 halves the demo's training time on processors that multiply it natively; elsewhere it would be refused.
DEMO_PRECISION := $(shell grep -qs -e avx512_bf16 -e amx_bf16 /proc/cpuinfo && echo bf16 || echo fp32)
# Where results hang on the kernels that torch, oneDNN and their like choose for a processor.
NUMERIC := $(addprefix tests/,models loss inference evaluation reporting exporting verbs)
# What the tests of a file share is made once: a file stays in one process.
TEST_PROCESSES ?= 2
PYTEST := $(BIN)/pytest -n $(TEST_PROCESSES) --dist loadfile
READY := $(VENV)/.installed-for-yolov5-spd
BROWSER_RUNTIME := examples/browser/node_modules
CPP_HEADERS := $(or $(wildcard /usr/include/onnxruntime),examples/cpp/headers)

.PHONY: demo test test-isa check acceptance install

install: $(READY)

$(READY): requirements.txt requirements-dev.txt constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check -q -r requirements-dev.txt -c constraints.txt
	touch $@

# Without npm or its registry the page's tests are skipped, with a reason.
$(BROWSER_RUNTIME):
	-npm install --prefix examples/browser --no-save --no-package-lock --ignore-scripts --loglevel error onnxruntime-web@1.30.0

# Without them the tests of the C++ program for ONNX Runtime are skipped, with a reason.
examples/cpp/headers:
	-sh tests/examples/onnxruntime_headers.sh $@

demo: $(READY)
	$(BIN)/python -m utils.dataset.demo_scenes --root datasets/demo-scenes
	$(BIN)/python train.py --weights '' --cfg yolov5n-spd.yaml --data demo-scenes.yaml --hyp data/hyps/hyp.demo.yaml \
		--optimizer AdamW --precision $(DEMO_PRECISION) --img 320 --epochs 16 --batch-size 8 --workers 2 \
		--project runs/demo --name train --exist-ok
	$(BIN)/python val.py --weights runs/demo/train/weights/best.pt --data demo-scenes.yaml --img 320 --workers 2 \
		--project runs/demo --name val --exist-ok
	$(BIN)/python detect.py --weights runs/demo/train/weights/best.pt --source data/images --img 640 \
		--project runs/demo --name detect --exist-ok
	$(BIN)/python export.py --weights runs/demo/train/weights/best.pt --include onnx --img 320
	@echo "AP, AP50, AP_S: runs/demo/val/metrics.json; annotated images: runs/demo/detect; ONNX: runs/demo/train/weights/best.onnx"

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST) -m "not slow and not acceptance"

test: $(READY) $(BROWSER_RUNTIME) $(CPP_HEADERS)
	$(PYTEST) -m "not acceptance" --durations=15

# What is set here decides at the start of a process only. Slow tests that compare nothing that a processor computes
# (pages, file names, structures of graphs) would take as long as all the others together: they are left out.
test-isa: $(READY)
	OMP_NUM_THREADS=1 ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 \
		$(PYTEST) -m "not acceptance and (not slow or kernels)" $(NUMERIC)
	OMP_NUM_THREADS=2 ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 \
		$(PYTEST) -m "not acceptance and (not slow or kernels)" $(NUMERIC)

acceptance: $(READY)
	$(BIN)/pytest -m acceptance -rA
