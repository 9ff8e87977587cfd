"""Flags of ``export.py``: those of ``ExportConfig``, and what concerns single formats."""

from __future__ import annotations

from dataclasses import dataclass, fields

from utils.config.command_line import flag
from utils.config.run_config import ExportConfig

# Flags of YOLOv5 that change nothing here or lead to what is not written here.
REFUSED_FLAGS = {
    "--optimize": "needs PyTorch's mobile optimizer, which its current builds leave out; export onnx for phones",
    "--keras": "TensorFlow models are not written; export onnx and convert it with onnx2tf",
    "--inplace": "the decoding that is exported never writes in place",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FullExportConfig(ExportConfig):
    """Settings of ``export.py``."""

    half: bool = flag(False, "weights in FP16 (onnx, openvino, engine)", group="Output")
    int8: bool = flag(False, "quantize to INT8 with the images of --data (onnx, openvino)", group="Output")
    data: str = flag("", "dataset YAML whose images the check uses; '' takes noise", group="Check")
    workspace: int = flag(4, "GiB of memory for building an engine", group="TensorRT", at_least=1, at_most=1024)
    verbose: bool = flag(False, "TensorRT's whole log while it builds an engine", group="TensorRT")
    nms: bool = flag(False, "embed suppression in the ONNX graph", group="Suppression")
    agnostic_nms: bool = flag(False, "one class per box, suppressed across classes", group="Suppression")
    topk_per_class: int = flag(100, "most detections per class and image", group="Suppression", at_least=1)
    topk_all: int = flag(100, "most detections per image", group="Suppression", at_least=1)
    iou_thres: float = flag(
        0.45, "IoU above which the lower-scored box is dropped", group="Suppression", at_least=0, at_most=1
    )
    conf_thres: float = flag(0.25, "lowest score of a detection", group="Suppression", at_least=0, at_most=1)


def flags_without_effect(config: FullExportConfig) -> list[str]:
    """Sentences on flags that say something about formats or steps that were not asked for."""
    through_onnx = ("onnx", "openvino", "engine")
    conditions = {
        "without --nms": (config.nms, ("agnostic_nms", "topk_per_class", "topk_all", "iou_thres", "conf_thres")),
        "without --include engine": ("engine" in config.include, ("workspace", "verbose")),
        f"for {' '.join(config.include)}": (not set(through_onnx).isdisjoint(config.include), ("simplify", "opset")),
    }
    given = {item.name for item in fields(config) if getattr(config, item.name) != item.default}
    return [
        f"--{name.replace('_', '-')}: changes nothing {condition}"
        for condition, (is_met, names) in conditions.items()
        for name in names
        if not is_met and name in given
    ]
