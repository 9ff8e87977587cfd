"""What is exported and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from utils.geometry.letterbox import FrameSize

ExportPrecision = Literal["fp32", "fp16", "int8"]


@dataclass(frozen=True, slots=True)
class EmbeddedSuppression:
    """Non-maximum suppression inside the exported graph; every class of a box that scores high enough counts."""

    conf_thres: float = 0.25
    iou_thres: float = 0.45
    topk_per_class: int = 100
    topk_all: int = 100
    agnostic: bool = False  # one class per box, suppressed across classes


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """Shape and form of an exported graph."""

    frame: FrameSize  # pixels, multiples of the model's stride
    batch_size: int = 1
    dynamic: bool = False  # batch, height and width may vary
    simplify: bool = False
    opset: int | None = None  # of ONNX; None for 17, or 18 where that cannot express the graph
    suppression: EmbeddedSuppression | None = None  # ONNX only
    precision: ExportPrecision = "fp32"
    workspace: int = 4  # GiB that TensorRT may use while it builds
    verbose: bool = False  # TensorRT's log

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """``(B, 3, H, W)``."""
        return (self.batch_size, 3, *self.frame)

    @property
    def name_ending(self) -> str:
        """What stands behind the stem of the weights' file in the export's: ``_fp16``, ``_int8``, then ``_nms``."""
        precision = "" if self.precision == "fp32" else f"_{self.precision}"
        return precision + ("_nms" if self.suppression is not None else "")
