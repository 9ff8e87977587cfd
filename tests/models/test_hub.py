"""Architectures of models/hub: parameter counts, and the SPD authors' files as they publish them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.architecture import MODELS_FOLDER, read_architecture
from models.common import SPDConv
from models.transfer import transfer_weights
from models.weights import read_weights
from models.yolo import DetectionModel, count_parameters, load_architecture
from tests.models.pickled_fixtures import pickled_detector, write_zip

# Parameters with 80 classes and strides. The YOLOv3, P6 and size variants equal the figures that YOLOv5 prints
# (yolov3 61 949 149, yolov3-tiny 8 852 366; without norms s6 12 612 508, m6 35 704 908, l6 76 726 332, x6 140 730 220).
HUB = {
    "yolov3": (61_949_149, (8, 16, 32)),
    "yolov3-spp": (62_998_749, (8, 16, 32)),
    "yolov3-tiny": (8_852_366, (16, 32)),
    "yolov5-bifpn": (46_825_853, (8, 16, 32)),
    "yolov5-fpn": (41_117_565, (8, 16, 32)),
    "yolov5-p2": (47_493_372, (4, 8, 16, 32)),
    "yolov5-p34": (5_331_518, (8, 16)),
    "yolov5-p6": (76_770_172, (8, 16, 32, 64)),
    "yolov5-p7": (144_281_723, (8, 16, 32, 64, 128)),
    "yolov5-panet": (46_563_709, (8, 16, 32)),
    "yolov5n6": (3_246_940, (8, 16, 32, 64)),
    "yolov5s6": (12_626_620, (8, 16, 32, 64)),
    "yolov5m6": (35_731_932, (8, 16, 32, 64)),
    "yolov5l6": (76_770_172, (8, 16, 32, 64)),
    "yolov5x6": (140_794_780, (8, 16, 32, 64)),
    "yolov5s-LeakyReLU": (7_235_389, (8, 16, 32)),
    "yolov5s-ghost": (3_897_605, (8, 16, 32)),
    "yolov5s-transformer": (7_235_645, (8, 16, 32)),
    "yolov5n-spd-lite": (1_550_621, (8, 16, 32)),
    "yolov5s-spd-lite": (5_952_317, (8, 16, 32)),
    "yolov5n-spd-p2": (3_672_252, (4, 8, 16, 32)),
    "yolov5s-spd-p2": (14_417_276, (4, 8, 16, 32)),
    "yolov5n-p234": (1_378_813, (4, 8, 16)),
    "yolov5s-p234": (5_379_325, (4, 8, 16)),
    "yolov5n-spd-p234": (2_664_445, (4, 8, 16)),
    "yolov5s-spd-p234": (10_521_853, (4, 8, 16)),
    "yolov5n-spd-lite-p234": (1_139_197, (4, 8, 16)),
    "yolov5s-spd-lite-p234": (4_423_933, (4, 8, 16)),
    "yolov5n-spd-small": (764_896, (4, 16)),
    "yolov5s-spd-small": (3_015_328, (4, 16)),
    "yolov5n-spd-lite-small": (419_296, (4, 16)),
    "yolov5s-spd-lite-small": (1_636_000, (4, 16)),
    "yolov5n6-spd": (7_076_188, (8, 16, 32, 64)),
    "yolov5s6-spd": (27_943_612, (8, 16, 32, 64)),
    "yolov5m6-spd": (70_195_164, (8, 16, 32, 64)),
    "yolov5l6-spd": (138_038_140, (8, 16, 32, 64)),
}
PARAMETERS_WITHOUT_NORMS = {
    "yolov5s6": 12_612_508,
    "yolov5m6": 35_704_908,
    "yolov5l6": 76_726_332,
    "yolov5x6": 140_730_220,
}
RELEASED = {"n": (0.33, 0.25), "s": (0.33, 0.50), "m": (0.67, 0.75), "l": (1.0, 1.0)}


def test_the_table_names_every_file() -> None:
    released = {f"yolov5{size}-spd-released" for size in RELEASED}
    assert {path.stem for path in MODELS_FOLDER.glob("hub/*.yaml")} == set(HUB) | released


@pytest.mark.parametrize("name", HUB)
def test_parameter_counts_and_strides(name: str) -> None:
    with torch.device("meta"):
        model = DetectionModel(load_architecture(name))
    assert (count_parameters(model), model.strides) == HUB[name]


@pytest.mark.parametrize(
    ("name", "stride"),
    [("yolov5-p34", 32), ("yolov5-p2", 32), ("yolov5-p7", 128)] + [(each, 32) for each in HUB if "-p234" in each],
)
def test_a_frame_of_one_stride_passes_though_the_head_leaves_out_the_coarsest_level(name: str, stride: int) -> None:
    with torch.device("meta"):
        model = DetectionModel(load_architecture(name)).eval()
        assert model.stride == stride
        assert len(model(torch.zeros(1, 3, stride, 3 * stride)).levels) == len(model.strides)


@pytest.mark.parametrize("size", ["n", "s"])
@pytest.mark.parametrize("stages", ["", "-spd", "-spd-lite"])
def test_a_finer_level_in_place_of_the_coarsest_takes_fewer_parameters(size: str, stages: str) -> None:
    with torch.device("meta"):
        base, finer = (DetectionModel(load_architecture(f"yolov5{size}{stages}{levels}")) for levels in ("", "-p234"))
    assert count_parameters(finer) < 0.8 * count_parameters(base)
    assert finer.anchors.shape == (3, 3, 2)


@pytest.mark.parametrize("name", PARAMETERS_WITHOUT_NORMS)
def test_parameter_counts_of_fused_releases(name: str) -> None:
    with torch.device("meta"):
        model = DetectionModel(load_architecture(name))
    # Folding a norm of c channels trades its 2 c parameters for c biases.
    folded = sum(layer.num_features for layer in model.modules() if isinstance(layer, torch.nn.BatchNorm2d))
    assert count_parameters(model) - folded == PARAMETERS_WITHOUT_NORMS[name]


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("yolov5n-spd-p2", 8),
        ("yolov5n-spd-p234", 6),
        ("yolov5n-spd-lite-p234", 6),
        ("yolov5n-spd-small", 4),
        ("yolov5n-spd-lite-small", 4),
        ("yolov5n6-spd", 9),
    ],
)
def test_spd_forms_downsample_by_space_to_depth_alone(name: str, stages: int) -> None:
    model = DetectionModel(load_architecture(name), class_count=2)
    assert sum(isinstance(layer, SPDConv) for layer in model.model) == stages
    strided = [each for each in model.modules() if isinstance(each, torch.nn.Conv2d) and each.stride != (1, 1)]
    assert strided == []


def authors_file(size: str) -> str:
    """The authors' architecture, in their layout: rows with ``space_to_depth`` whose argument is a dimension."""
    depth, width = RELEASED[size]
    return f"""
nc: 80
depth_multiple: {depth}
width_multiple: {width}
anchors:
  - [10,13, 16,30, 33,23]
  - [30,61, 62,45, 59,119]
  - [116,90, 156,198, 373,326]
backbone:
  [[-1, 1, Focus, [64, 3]],
   [-1, 1, Conv, [128, 3, 1]],
   [-1, 1, space_to_depth, [1]],
   [-1, 3, C3, [128]],
   [-1, 1, Conv, [256, 3, 1]],
   [-1, 1, space_to_depth, [1]],
   [-1, 6, C3, [256]],
   [-1, 1, Conv, [512, 3, 1]],
   [-1, 1, space_to_depth, [1]],
   [-1, 9, C3, [512]],
   [-1, 1, Conv, [1024, 3, 1]],
   [-1, 1, space_to_depth, [1]],
   [-1, 3, C3, [1024]],
   [-1, 1, SPPF, [1024, 5]]]
head:
  [[-1, 1, Conv, [512, 1, 1]],
   [-1, 1, nn.Upsample, [None, 2, 'nearest']],
   [[-1, 9], 1, Concat, [1]],
   [-1, 3, C3, [512, False]],
   [-1, 1, Conv, [256, 1, 1]],
   [-1, 1, nn.Upsample, [None, 2, 'nearest']],
   [[-1, 6], 1, Concat, [1]],
   [-1, 3, C3, [256, False]],
   [-1, 1, Conv, [256, 3, 1]],
   [-1, 1, space_to_depth, [1]],
   [[-1, 18], 1, Concat, [1]],
   [-1, 3, C3, [512, False]],
   [-1, 1, Conv, [512, 3, 1]],
   [-1, 1, space_to_depth, [1]],
   [[-1, 14], 1, Concat, [1]],
   [-1, 3, C3, [1024, False]],
   [[21, 25, 29], 1, Detect, [nc, anchors]]]
"""


@pytest.mark.parametrize("size", RELEASED)
def test_the_authors_files_build_the_released_family(size: str, tmp_path: Path) -> None:
    file = tmp_path / f"space_depth_{size}.yaml"
    file.write_text(authors_file(size), encoding="utf-8")
    with torch.device("meta"):
        theirs = DetectionModel(read_architecture(file))
        ours = DetectionModel(load_architecture(f"yolov5{size}-spd-released"))
    shapes = [{name: tuple(each.shape) for name, each in model.state_dict().items()} for model in (theirs, ours)]
    assert shapes[0] == shapes[1]


def test_weights_load_into_the_authors_file(tmp_path: Path) -> None:
    file = tmp_path / "space_depth_n.yaml"
    file.write_text(authors_file("n"), encoding="utf-8")
    torch.manual_seed(0)
    trained = DetectionModel(read_architecture(file), class_count=2).half().float().eval()
    write_zip({"model": pickled_detector(trained)}, tmp_path / "spd.pt")
    model = DetectionModel(load_architecture("yolov5n-spd-released"), class_count=2).eval()
    assert transfer_weights(model, read_weights(tmp_path / "spd.pt")).exact
    assert all(
        torch.equal(ours, theirs)
        for ours, theirs in zip(model.state_dict().values(), trained.state_dict().values(), strict=True)
    )
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        # The weights are the same to the bit; sums over them, which may lie elsewhere in memory, need not be.
        torch.testing.assert_close(model.predict(images).boxes, trained.predict(images).boxes, rtol=1e-4, atol=1e-3)
