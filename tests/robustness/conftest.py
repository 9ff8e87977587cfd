"""Files that are in order, made once; every case breaks a copy or something beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.exporting.small_model import write_small_checkpoint
from tests.robustness.running import succeeds
from tests.small_dataset import write_small_dataset


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector of three classes."""
    return write_small_checkpoint(tmp_path_factory.mktemp("weights") / "small.pt")


@pytest.fixture(scope="session")
def onnx(weights: Path) -> Path:
    """The same, exported for one image of 64 x 64."""
    succeeds("export", "--weights", weights, "--include", "onnx", "--img", 64, folder=weights.parent)
    return weights.with_suffix(".onnx")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of three classes with 4 training and 2 validation images."""
    return write_small_dataset(tmp_path_factory.mktemp("data") / "small", train=4, val=2)
