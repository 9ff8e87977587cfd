"""INT8 files of ONNX and OpenVINO: calibrated on images of the data set and held to what they cost in AP.

Convolutions are quantized; the head's decoding stays in float32, because eight bits cannot say where in 640 pixels a
box begins.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch

from utils.config.dataset_yaml import DatasetSpec
from utils.dataset.batch_loader import LoaderSettings
from utils.dataset.detection_dataset import DetectionDataset, open_part
from utils.dataset.evaluation_loader import evaluation_loader
from utils.dataset.image_files import read_image
from utils.dataset.image_lists import list_images
from utils.evaluation.evaluate import EvaluationSettings, evaluate
from utils.exporting.decoding_nodes import decoding_of_openvino, head_convolutions_of_onnx
from utils.exporting.export_settings import ExportSettings
from utils.exporting.graph_output import INPUT_NAME
from utils.geometry.letterbox import letterbox
from utils.inference.detector import OpenedDetector
from utils.inference.predictor import as_network_input
from utils.user_error import UsageError, UserError

CALIBRATION_IMAGES = 128
LARGEST_LOSS = 0.02  # of AP


@dataclass(frozen=True, slots=True)
class Accuracy:
    """COCO's AP over all objects and over the small ones (-1 without any)."""

    ap: float
    ap_small: float


@dataclass(frozen=True, slots=True)
class Int8Data:
    """Images to calibrate on, out of the train part, and the val part to measure AP on."""

    calibration: tuple[Path, ...]
    evaluated: DetectionDataset

    @classmethod
    def of(cls, dataset: DatasetSpec) -> Int8Data:
        """At most ``CALIBRATION_IMAGES`` images, spread over the train part."""
        paths = list_images(dataset.having("train").train, dataset.root)
        chosen = paths[:: -(-len(paths) // CALIBRATION_IMAGES)]
        return cls(tuple(chosen), open_part(dataset, "val", title="val"))

    def check(self, class_count: int, batch_size: int) -> None:
        """Refuse images that cannot calibrate a model, or give AP for one, of so many classes in batches of that size.

        Raises:
            UsageError: too few of them, other classes, or no labelled object, without which there is no AP.
        """
        if len(self.calibration) < batch_size:
            raise UsageError(
                f"--int8 --batch-size {batch_size}: the train part has {len(self.calibration)} images to calibrate "
                "on, not one batch"
            )
        if len(self.evaluated.names) != class_count:
            raise UsageError(
                f"--int8 --data: names {len(self.evaluated.names)} classes, but the model has {class_count}; INT8 is "
                "evaluated on its own data set"
            )
        if self.evaluated.index.unlabelled == len(self.evaluated) and self.evaluated.annotations is None:
            raise UsageError("--int8 --data: no image of the val part has labels to measure AP on")

    def batches(self, settings: ExportSettings) -> Iterator[np.ndarray]:
        """The calibration images, letterboxed: (B, 3, H, W) float32 0-1, whole batches only."""
        size, frame = settings.batch_size, settings.frame
        for start in range(0, len(self.calibration) - size + 1, size):
            images = [letterbox(read_image(path), frame)[0] for path in self.calibration[start : start + size]]
            yield as_network_input(images, torch.device("cpu")).numpy()

    def accuracy(self, detector: OpenedDetector, settings: ExportSettings) -> Accuracy:
        """AP of ``detector`` on the val part, every image in the export's frame."""
        loader = evaluation_loader(
            self.evaluated,
            max(settings.frame),
            LoaderSettings(settings.batch_size),
            stride=detector.backend.stride,
            frame=settings.frame,
        )
        summary = evaluate(detector.backend, loader, EvaluationSettings(), detector.device).coco
        return Accuracy(summary.AP, summary.AP_S)


def quantize_onnx(source: Path, target: Path, batches: Iterator[np.ndarray]) -> None:
    """Write the INT8 form of an ONNX file: its convolutions in QDQ form, weights per channel."""
    # Both take a second to import and nobody else needs them.
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(batches, None)
            return None if batch is None else {INPUT_NAME: batch}

    before = onnx.load(source)
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it recommends its own pre-processing at every call
    try:
        quantize_static(
            str(source),
            str(target),
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=head_convolutions_of_onnx(before.graph),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    finally:
        root.setLevel(level)
    after = onnx.load(target)
    onnx.helper.set_model_props(after, {entry.key: entry.value for entry in before.metadata_props})
    onnx.save(after, target)


def quantize_openvino(source: Path, target: Path, batches: Iterator[np.ndarray]) -> None:
    """Write the INT8 form of an OpenVINO folder into the new folder ``target``.

    Raises:
        UserError: NNCF is not installed.
    """
    try:
        import nncf
    except ImportError:
        raise UserError("--int8 for OpenVINO needs NNCF (pip install nncf)") from None
    import openvino

    nncf.set_log_level(logging.ERROR)
    (graph,) = source.glob("*.xml")
    model = openvino.Core().read_model(graph)
    calibration = list(batches)
    quantized = nncf.quantize(
        model,
        nncf.Dataset(calibration),
        preset=nncf.QuantizationPreset.MIXED,  # SiLU's outputs are not symmetric
        subset_size=len(calibration),
        ignored_scope=nncf.IgnoredScope(names=decoding_of_openvino(model)),
    )
    target.mkdir()
    stem = target.name.removesuffix("_openvino_model")
    openvino.save_model(quantized, target / f"{stem}.xml", compress_to_fp16=False)
    for metadata in source.glob("*.yaml"):
        (target / f"{stem}.yaml").write_bytes(metadata.read_bytes())
