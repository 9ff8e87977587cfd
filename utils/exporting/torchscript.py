"""TorchScript: the traced graph with its metadata, one archive that torch.jit.load or LibTorch opens."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path

import torch

from utils.exporting.export_settings import ExportSettings
from utils.exporting.graph_output import ExportableModel, GraphOutput
from utils.inference.graph_runtimes import TORCHSCRIPT_METADATA


def write_torchscript(model: ExportableModel, path: Path, settings: ExportSettings) -> None:
    """Write ``model`` (in evaluation mode) to ``path``; ``config.txt`` inside carries shape, stride and names."""
    device = next(model.parameters()).device
    example = torch.zeros(settings.input_shape, device=device)
    with torch.no_grad(), warnings.catch_warnings():
        # torch announces the end of TorchScript at each call and warns of every shape read as a constant; whether the
        # graph is right at other shapes is measured afterwards.
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(GraphOutput(model), example, check_trace=False)  # type: ignore[no-untyped-call]
        metadata = {
            "shape": list(settings.input_shape),
            "stride": model.stride,
            "names": dict(enumerate(model.names)),
            "dynamic": settings.dynamic,
        }
        archive = io.BytesIO()  # on a full disk torch's own writer would end the program
        torch.jit.save(traced, archive, _extra_files={TORCHSCRIPT_METADATA: json.dumps(metadata)})
    path.write_bytes(archive.getvalue())
