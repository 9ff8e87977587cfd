"""A detector of three classes that exports in seconds."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import torch
from torch import nn

from models.head import Detect
from models.weights import checkpoint_fields
from models.yolo import DetectionModel, read_architecture

NAMES = ("car", "boat", 'it\'s a "person"')
STRIDE = 8


def small_model() -> DetectionModel:
    """Random weights from a fixed seed, in evaluation mode.

    The statistics of the norms are those of random images, so that every layer matters to the output, and the
    head's weights are large enough for scores over the whole range.
    """
    torch.manual_seed(0)
    architecture = read_architecture(Path(__file__).with_name("small-detector.yaml"))
    model = DetectionModel(architecture, names=NAMES).train()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():
        model(torch.rand(4, 3, 64, 96))
        assert isinstance(model.head, Detect)
        for convolution in model.head.m:
            assert isinstance(convolution, nn.Conv2d) and convolution.bias is not None
            convolution.weight.mul_(8)
            convolution.bias.zero_()
    return model.eval()


def write_small_checkpoint(path: Path) -> Path:
    """A checkpoint of ``small_model``."""
    torch.save(checkpoint_fields(small_model()), path)
    return path


def write_small_torchscript(path: Path, frame: tuple[int, int]) -> Path:
    """``small_model`` as TorchScript for one image of ``frame`` (height, width), without class names."""
    shape = [1, 3, *frame]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch announces the end of TorchScript
        module = torch.jit.trace(_Rows(), torch.zeros(shape))  # type: ignore[no-untyped-call]
        metadata = {"config.txt": json.dumps({"shape": shape, "stride": STRIDE})}
        torch.jit.save(module, path, _extra_files=metadata)
    return path


class _Rows(nn.Module):
    """Decoded rows of the small model."""

    def __init__(self) -> None:
        super().__init__()
        self.detector = small_model()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.detector.head.rows(self.detector(images))
