"""OpenVINO: a folder with the graph (``.xml``), the weights (``.bin``) and the metadata (``.yaml``)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import yaml

from utils.exporting.export_settings import ExportSettings
from utils.exporting.graph_output import ExportableModel
from utils.exporting.onnx import write_onnx
from utils.user_error import UserError


def write_openvino(model: ExportableModel, path: Path, settings: ExportSettings) -> None:
    """Write ``model`` (in evaluation mode) to the new folder ``path``, weights in fp32, by way of ONNX.

    Raises:
        UserError: OpenVINO is not installed.
    """
    try:
        import openvino  # loads a large shared library
    except ImportError:
        raise UserError("it needs OpenVINO (pip install openvino)") from None

    path.mkdir()
    stem = path.name.removesuffix("_openvino_model")
    intermediate = path / f"{stem}.onnx"
    write_onnx(model, intermediate, replace(settings, suppression=None))
    openvino.save_model(openvino.convert_model(intermediate), path / f"{stem}.xml", compress_to_fp16=False)
    intermediate.unlink()
    metadata = {"stride": model.stride, "names": dict(enumerate(model.names))}
    (path / f"{stem}.yaml").write_text(yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True), encoding="utf-8")
