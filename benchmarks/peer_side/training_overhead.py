"""Run a train.py of either side and time what lies outside the network: `benchmarks.training_overhead` starts this.

Arguments: how many of the first steps do not count, then the script and its own arguments. Prints, as a JSON list, the
processor time per step outside of forward and backward passes of the network, and inside of them.
"""

import json
import runpy
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path.cwd()))

import torch

SKIPPED = int(sys.argv[1])
sys.argv = sys.argv[2:]
STEPS, INSIDE, DEPTH = [], [0.0], [0]  # moments at which a backward pass ended; time inside so far at each


def timed(call):
    """The call, with the processor time of its outermost run added to INSIDE."""

    def run(*arguments, **settings):
        start = time.process_time()
        DEPTH[0] += 1
        try:
            return call(*arguments, **settings)
        finally:
            DEPTH[0] -= 1
            if DEPTH[0] == 0:
                INSIDE[0] += time.process_time() - start

    return run


def backward(self, *arguments, **settings):
    """One step is counted from the end of a backward pass to the end of the next."""
    BACKWARD(self, *arguments, **settings)
    STEPS.append((time.process_time(), INSIDE[0]))


from models import yolo

BACKWARD = timed(torch.Tensor.backward)
torch.Tensor.backward = backward
yolo.DetectionModel.forward = timed(yolo.DetectionModel.forward)
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    if end.code:
        raise
(first, inside_first), (last, inside_last) = STEPS[SKIPPED], STEPS[-1]
count = len(STEPS) - 1 - SKIPPED
inside = (inside_last - inside_first) / count
print(json.dumps([(last - first) / count - inside, inside]))
