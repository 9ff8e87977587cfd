"""Importing any module changes nothing: no files, environment, global settings, log or warning filters."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.shared_data import REPOSITORY
from tests.test_import_order import own_files

PROBE = """
import json, logging, os, signal, sys, threading, warnings
import cv2, numpy, torch, matplotlib, tqdm, pandas, torchvision, optuna, sqlalchemy, PIL.Image

def state():
    return {
        "environment": dict(os.environ),
        "folder": sorted(os.listdir(".")),
        "filters": len(warnings.filters),
        "root handlers": len(logging.getLogger().handlers),
        "threads": (torch.get_num_threads(), cv2.getNumThreads(), threading.active_count()),
        "default dtype": str(torch.get_default_dtype()),
        "determinism": torch.are_deterministic_algorithms_enabled(),
        "rng": torch.get_rng_state().sum().item(),
        "numpy rng": int(numpy.random.get_state()[1].sum()),
        "print options": repr(numpy.get_printoptions()),
        "signals": [str(signal.getsignal(s)) for s in (signal.SIGINT, signal.SIGTERM)],
        "backend": matplotlib.rcParams["backend"] if "matplotlib.pyplot" in sys.modules else None,
        "truncated images": PIL.ImageFile.LOAD_TRUNCATED_IMAGES if hasattr(PIL, "ImageFile") else None,
    }

import importlib
before = state()
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
after = state()
print(json.dumps({key: [str(before[key]), str(after[key])] for key in before if before[key] != after[key]}))
"""


def test_importing_every_module_has_no_effect() -> None:
    names = [".".join(path.relative_to(REPOSITORY).with_suffix("").parts) for path in own_files()]
    names = [name.removesuffix(".__init__") for name in names]
    result = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(names)], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert json.loads(result.stdout) == {}
    assert result.stderr == ""
