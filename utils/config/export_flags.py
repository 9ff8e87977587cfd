"""Settings of ``export.py``: flags with YOLOv5's names, meanings and defaults, and those of single formats."""

from __future__ import annotations

from dataclasses import dataclass, fields

from utils.config.command_line import flag
from utils.config.shared_flags import IMGSZ_ALIASES, LARGEST_BATCH, LONGEST_SIDE

# Flags of YOLOv5 that change nothing here or lead to what is not written here.
REFUSED_EXPORT_FLAGS = {
    "--optimize": "needs PyTorch's mobile optimizer, which its current builds leave out; export onnx for phones",
    "--keras": "TensorFlow models are not written; export onnx and convert it with onnx2tf",
    "--inplace": "the decoding that is exported never writes in place",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportConfig:
    """Settings of ``export.py``."""

    weights: str = flag("yolov5s.pt", "model file (.pt)", group="Model")
    include: tuple[str, ...] = flag(
        ("torchscript",), "formats: torchscript onnx openvino engine ncnn tflite coreml", group="Output"
    )
    imgsz: tuple[int, ...] = flag(
        (640, 640),
        "input size, pixels: one side or height width",
        group="Model",
        aliases=IMGSZ_ALIASES,
        at_least=32,
        at_most=LONGEST_SIDE,
        max_values=2,
    )
    batch_size: int = flag(1, "images per batch", group="Model", at_least=1, at_most=LARGEST_BATCH)
    device: str = flag("cpu", "cpu, 0, cuda:0", group="Run")
    dynamic: bool = flag(False, "let batch size, height and width of the input vary", group="Output")
    simplify: bool = flag(False, "simplify the ONNX graph", group="Output")
    opset: int | None = flag(
        None, "ONNX operator set; by default 17, or 18 if a graph needs it", group="Output", at_least=11, at_most=23
    )
    half: bool = flag(False, "weights in FP16 (onnx, openvino, engine, ncnn, tflite, coreml): *_fp16", group="Output")
    int8: bool = flag(
        False, "quantize to INT8 with the images of --data (onnx, openvino, tflite, coreml): *_int8", group="Output"
    )
    data: str = flag("", "dataset YAML whose images the check uses; '' uses noise", group="Check")
    workspace: int = flag(4, "memory for building an engine, GiB", group="TensorRT", at_least=1, at_most=1024)
    verbose: bool = flag(False, "print TensorRT's whole log while it builds an engine", group="TensorRT")
    nms: bool = flag(False, "embed suppression in the ONNX graph: *_nms.onnx", group="Suppression")
    agnostic_nms: bool = flag(False, "one class per box, suppressed across classes", group="Suppression")
    topk_per_class: int = flag(100, "most detections per class and image", group="Suppression", at_least=1)
    topk_all: int = flag(100, "most detections per image", group="Suppression", at_least=1)
    iou_thres: float = flag(
        0.45, "IoU above which the lower-scored box is dropped", group="Suppression", at_least=0, at_most=1
    )
    conf_thres: float = flag(0.25, "lowest score of a detection", group="Suppression", at_least=0, at_most=1)


def flags_without_effect(config: ExportConfig) -> list[str]:
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
