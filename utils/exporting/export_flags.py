"""Flags of ``export.py``: those of ``ExportConfig``, and what concerns single formats."""

from __future__ import annotations

from dataclasses import dataclass

from utils.config.command_line import flag
from utils.config.run_config import ExportConfig

# Flags of YOLOv5 that change nothing here or lead to what is not written here.
REFUSED_FLAGS = {
    "--optimize": "mobile TorchScript is not written; export onnx",
    "--keras": "TensorFlow models are not written; export onnx and convert it with onnx2tf",
    "--workspace": "TensorRT engines are not written; export onnx and give trtexec its --memPoolSize",
    "--verbose": "TensorRT engines are not written; trtexec has its own --verbose",
    "--inplace": "the decoding that is exported never writes in place",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FullExportConfig(ExportConfig):
    """Settings of ``export.py``."""

    half: bool = flag(False, "weights in FP16 (onnx, openvino)", group="Output")
    int8: bool = flag(False, "quantize to INT8 with the pictures of --data (onnx, openvino)", group="Output")
    data: str = flag("", "dataset YAML whose pictures the check uses; '' takes noise", group="Check")
    nms: bool = flag(False, "embed suppression in the ONNX graph", group="Suppression")
    agnostic_nms: bool = flag(False, "one class per box, suppressed across classes", group="Suppression")
    topk_per_class: int = flag(100, "most detections per class and picture", group="Suppression", at_least=1)
    topk_all: int = flag(100, "most detections per picture", group="Suppression", at_least=1)
    iou_thres: float = flag(
        0.45, "IoU above which the lower-scored box is dropped", group="Suppression", at_least=0, at_most=1
    )
    conf_thres: float = flag(0.25, "lowest score of a detection", group="Suppression", at_least=0, at_most=1)
