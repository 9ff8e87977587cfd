"""Architecture files: what is read, and how mistakes are reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from models.architecture import Architecture, find_architecture, read_architecture
from models.fuse import fused
from models.yolo import DetectionModel, load_architecture
from utils.user_error import UserError


def plain(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "nc": 2,
        "anchors": [[4, 5, 8, 9], [16, 18, 30, 31]],
        "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "SPDConv", [16, 3]], [-1, 2, "C3", [16]]],
        "head": [[-1, 1, "SPDConv", [16, 3]], [[2, 3], 1, "Detect", ["nc", "anchors"]]],
    }
    return values | changes


def replaced(section: str, index: int, row: Any) -> dict[str, Any]:
    rows = [*plain()[section]]
    rows[index] = row
    return plain(**{section: rows})


def test_a_small_file_builds(tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(plain()), encoding="utf-8")
    model = DetectionModel(read_architecture(file))
    assert model.strides == (4, 8)
    assert model.stride == 8
    assert model.anchors[1].tolist() == [[16, 18], [30, 31]]


def test_plain_values_give_the_architecture_back() -> None:
    for name in ("yolov5n", "yolov5s-spd", "yolov5m-spd-released"):
        architecture = load_architecture(name)
        assert Architecture.from_dict(architecture.as_dict(), architecture.origin) == architecture


def test_depth_and_width() -> None:
    architecture = Architecture.from_dict(plain(depth_multiple=0.33, width_multiple=0.25))
    assert [architecture.scaled_depth(n) for n in (1, 2, 3, 6, 9)] == [1, 1, 1, 2, 3]
    assert [architecture.scaled_width(c) for c in (16, 32, 33, 64, 255)] == [8, 8, 16, 16, 64]


@pytest.mark.case("Architecture files", "a kernel as a list, [1, 1] or [3, 1]", "built as torch takes it")
def test_a_kernel_as_a_list_of_its_sides() -> None:
    rows = [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "SPDConv", [16, [3, 3]]]]
    rows += [[-1, 1, "Conv", [16, [3, 1]]], [-1, 1, "Conv", [16, [1, 1], [1, 1]]], [-1, 1, "nn.MaxPool2d", [[1, 1]]]]
    head = [[-1, 1, "SPDConv", [16, 3]], [[2, 5], 1, "Detect", ["nc", "anchors"]]]
    model = DetectionModel(Architecture.from_dict(plain(backbone=rows, head=head))).eval()
    assert model.get_submodule("model.2.conv").weight.shape == (16, 16, 3, 1)
    assert model.get_submodule("model.3.conv").weight.shape == (16, 16, 1, 1)
    images = torch.rand(1, 3, 32, 32)
    for ours, own in zip(fused(model)(images).levels, model(images).levels, strict=True):
        torch.testing.assert_close(ours, own, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (replaced("backbone", 0, [-1, 1, "Conv", [8, [3, 2, 1], 2]]), "argument 'size' is [3, 2, 1]; a whole number"),
        (replaced("backbone", 0, [-1, 1, "Conv", [[8, 8], 3, 2]]), "argument 'out' is (8, 8); a whole number"),
        (replaced("backbone", 0, [-1, 1, "Conv", [8, 3, [2, 1]]]), "argument 'stride' is (2, 1); a whole number"),
        (replaced("backbone", 0, [-1, 1, "Cnov", [8]]), "(layer 0, Cnov): unknown module 'Cnov'; nearest is 'Conv'"),
        (replaced("backbone", 0, [-1, 1, "__import__('os').system('true')", [8]]), "unknown module"),
        (replaced("head", 0, [-1, 1, "Conv", ["eight"]]), "head row 0 (layer 3, Conv): argument 'out' is 'eight'"),
        (replaced("backbone", 1, [-1, 1, "Conv", [8, 3, 2, 1, 1, 1, True, 5]]), "argument 5 is one too many"),
        (replaced("backbone", 1, [-1, 1, "Conv", []]), "argument 'out' is missing"),
        (replaced("backbone", 1, [-1, 1, "Conv", [8, 3, 2, None, 3]]), "3 groups"),
        (replaced("backbone", 1, [-1, 1, "SPDConv", [16, 4]]), "argument 'size' is 4; an odd number is needed"),
        (replaced("backbone", 1, [7, 1, "Conv", [8]]), "layer 1, Conv): from is 7"),
        (replaced("backbone", 1, [-3, 1, "Conv", [8]]), "from is -3"),
        (replaced("backbone", 1, [1, 1, "Conv", [8]]), "from is 1"),
        (replaced("backbone", 1, ["up", 1, "Conv", [8]]), "backbone row 1: from is 'up'"),
        (replaced("backbone", 1, [[-1, 0], 1, "Conv", [8]]), "from names 2 layers; Conv takes one"),
        (replaced("backbone", 1, [-1, 0, "Conv", [8]]), "backbone row 1: number is 0"),
        (replaced("backbone", 1, [-1, 2, "Conv", [16, 3, 2]]), "repeated 2 times"),
        (replaced("backbone", 1, [-1, 1, "Conv"]), "[from, number, module, arguments] is needed"),
        (replaced("backbone", 1, [-1, 1, "C3", [8, 1]]), "argument 'shortcut' is 1; True or False is needed"),
        (replaced("head", 0, [[-1, 0], 1, "Concat", [1]]), "maps of different strides (4, 2)"),
        (replaced("head", 1, [[3, 2], 1, "Detect", ["nc", "anchors"]]), "finest to the coarsest; their strides are 8"),
        (replaced("head", 1, [[1, 2, 3], 1, "Detect", ["nc", "anchors"]]), "3 levels, but anchors for 2"),
        (plain(head=[[-1, 1, "Conv", [8]]]), "the last row must be Detect"),
        (plain(anchors=[[4, 5], [1, 2, 3]]), "anchors of level 1"),
        (plain(anchors=[[4, 5], [1, 2, 3, 4]]), "every level needs the same number"),
        (plain(anchors=[[4, -5], [1, 2]]), "anchors of level 0 is -5"),
        (plain(nc="many"), "f.yaml: nc is 'many'"),
        (plain(depth_mutliple=1.0), "unknown key 'depth_mutliple'; nearest is 'depth_multiple'"),
        (plain(activation="nn.Softmaxx()"), "activation is 'nn.Softmaxx()'"),
        (plain(activation="__import__('os').getcwd()"), "activation is"),
        ({"nc": 3}, "key 'anchors' is missing"),
    ],
)  # fmt: skip
def test_mistakes_are_named(values: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError) as caught:
        DetectionModel(Architecture.from_dict(values, "f.yaml"))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("nc: [1, 2\nanchors: }", encoding="utf-8")
    for path, told in ((broken, "not a YAML file"), (tmp_path / "none.yaml", "cannot be read")):
        with pytest.raises(UserError, match=told) as caught:
            read_architecture(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    broken.write_text("- 1\n", encoding="utf-8")
    with pytest.raises(UserError, match="is a mapping"):
        read_architecture(broken)


def test_code_in_a_file_is_text_or_an_error(tmp_path: Path) -> None:
    file = tmp_path / "code.yaml"
    file.write_text("nc: !!python/object/apply:os.getcwd []\n", encoding="utf-8")
    with pytest.raises(UserError, match="not a YAML file"):
        read_architecture(file)


def test_files_are_found_by_name(tmp_path: Path) -> None:
    assert find_architecture("yolov5n-spd").name == "yolov5n-spd.yaml"
    assert find_architecture("yolov5n-spd-released.yaml").parent.name == "hub"
    own = tmp_path / "mine.yaml"
    own.write_text("nc: 1", encoding="utf-8")
    assert find_architecture(own) == own
    with pytest.raises(UserError, match=r"nearest is 'yolov5n-spd\.yaml'"):
        find_architecture("yolov5n-sdp.yaml")


def test_a_number_of_anchors_gives_growing_squares() -> None:
    model = DetectionModel(Architecture.from_dict(plain(anchors=2)))
    assert model.anchors.shape == (2, 2, 2)
    sides = model.anchors[..., 0].flatten()
    assert (sides > 0).all() and (model.anchors[..., 0] == model.anchors[..., 1]).all()
    assert (model.anchors[1] == 2 * model.anchors[0]).all()


def test_anchors_listed_coarsest_first_are_turned_round() -> None:
    model = DetectionModel(Architecture.from_dict(plain(anchors=[[16, 18, 30, 31], [4, 5, 8, 9]])))
    assert model.anchors[0].tolist() == [[4, 5], [8, 9]]


@pytest.mark.parametrize(("text", "kind"), [("nn.LeakyReLU(0.1)", "LeakyReLU"), ("nn.ReLU(inplace=True)", "ReLU")])
def test_activation(text: str, kind: str) -> None:
    model = DetectionModel(Architecture.from_dict(plain(activation=text)))
    kinds = {type(module).__name__ for name, module in model.named_modules() if name.endswith("act")}
    assert kinds == {kind}
