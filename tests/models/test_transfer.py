"""Weights put into other models: exact starts of SPD models, other classes, anchors, channels, and what is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.alignment import Relation, align
from models.architecture import Architecture
from models.fuse import fused
from models.roles import layers_by_role
from models.transfer import class_rows, transfer_weights
from models.weights import ModelWeights, read_weights
from models.yolo import DetectionModel, load_architecture
from tests.joined_ways import joined_ways
from tests.models.test_fuse import disturb_norms
from tests.models.test_generations import RELEASE_5
from tests.shared_data import SHARED, needs_shared

NAMES = ("cat", "dog", "hen")


def weights_of(model: DetectionModel) -> ModelWeights:
    return ModelWeights(
        architecture=model.architecture,
        names=model.names,
        anchors=model.anchors,
        strides=model.strides,
        state_dict=model.state_dict(),
        path=Path("folder/start.pt"),
    )


def trained(name: str, names: tuple[str, ...] = NAMES, channels: int = 3) -> DetectionModel:
    torch.manual_seed(11)
    model = DetectionModel(load_architecture(name), names=names, channels=channels).eval()
    disturb_norms(model)
    return model


def target(name: str, names: tuple[str, ...] = NAMES, channels: int = 3) -> DetectionModel:
    torch.manual_seed(12)
    return DetectionModel(load_architecture(name), names=names, channels=channels).eval()


@needs_shared
@pytest.mark.parametrize(("name", "rewritten"), [("yolov5n-spd", 7), ("yolov5n-spd-released", 13), ("yolov5n", 0)])
@pytest.mark.parametrize("is_fused", [False, True])
def test_official_weights_start_spd_models_as_the_same_function(name: str, rewritten: int, is_fused: bool) -> None:
    weights = read_weights(SHARED / "weights" / "yolov5n.pt")
    model = DetectionModel(load_architecture(name), names=weights.names).eval()
    report = transfer_weights(model, weights)
    assert report.exact and report.left == () and len(report.rewritten) == rewritten
    with np.load(SHARED / "reference" / "yolov5n_forward.npz") as file:
        images, expected = torch.from_numpy(file["images"]), torch.from_numpy(file["decoded"])
    model = fused(model) if is_fused else model
    with torch.inference_mode():
        difference = (model.head.rows(model(images.float() / 255)) - expected).abs()
    assert difference[..., :4].max() <= 1e-2
    assert difference[..., 4:].max() <= 2e-5


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("yolov5n", "yolov5n-spd"),
        ("yolov5n", "yolov5n-spd-released"),
        ("yolov5n6", "yolov5n6-spd"),
        ("yolov5n-spd", "yolov5n-spd"),
        ("yolov5n-spd-released", "yolov5n-spd-released"),
    ],
)
def test_exact_starts(start: str, end: str) -> None:
    source, model = trained(start), target(end)
    report = transfer_weights(model, weights_of(source))
    assert report.exact
    assert report.lines()[0].endswith("the model computes the same function")
    assert report.lines()[1] == "not taken: nothing"
    images = torch.rand(1, 3, 128, 64)
    with torch.inference_mode():
        torch.testing.assert_close(model.predict(images).boxes, source.predict(images).boxes, rtol=1e-4, atol=1e-3)


def test_new_phases_start_at_zero_and_learn() -> None:
    """The phases that YOLOv5 never saw carry no weight at first, but they get a gradient."""
    model = target("yolov5n-spd-released")
    transfer_weights(model, weights_of(trained("yolov5n")))
    weight = model.get_parameter("model.3.cv1.conv.weight")
    first, rest = weight[:, :32], weight[:, 32:]
    assert first.abs().sum() > 0 and rest.abs().sum() == 0
    joined = model.get_parameter("model.25.cv1.conv.weight")  # 256 channels of SPD, then 64 of the skip
    assert joined[:, 64:256].abs().sum() == 0 and joined[:, 256:].abs().min() > 0
    model(torch.rand(1, 3, 64, 64)).levels[0].square().sum().backward()
    assert weight.grad is not None and bool((weight.grad[:, 32:].abs().sum(dim=(0, 2, 3)) > 0).all())


def test_the_old_kernel_sits_inside_the_strided_form() -> None:
    source, model = trained("yolov5n"), target("yolov5n-spd")
    transfer_weights(model, weights_of(source))
    strided = model.model[1].strided_weight()  # type: ignore[operator]
    assert torch.equal(strided[:, :, 1:4, 1:4], source.get_parameter("model.1.conv.weight"))
    assert strided.abs().sum() == strided[:, :, 1:4, 1:4].abs().sum()
    stem = model.model[0].strided_weight()  # type: ignore[operator]
    assert torch.equal(stem, source.get_parameter("model.0.conv.weight"))


def test_a_stem_of_release_5_becomes_a_strided_one() -> None:
    torch.manual_seed(1)
    source = DetectionModel(Architecture.from_dict(RELEASE_5), names=("cat", "dog")).eval()
    disturb_norms(source)
    for stem in (["Conv", [64, 6, 2, 2]], ["SPDConv", [64, 3]]):
        values = RELEASE_5 | {"backbone": [[-1, 1, *stem], *RELEASE_5["backbone"][1:]]}  # type: ignore[index]
        model = DetectionModel(Architecture.from_dict(values), names=("cat", "dog")).eval()
        report = transfer_weights(model, weights_of(source))
        assert report.exact and report.rewritten == ("model.0.conv.weight",)
        images = torch.rand(1, 3, 64, 32)
        with torch.inference_mode():
            torch.testing.assert_close(model.predict(images).boxes, source.predict(images).boxes, rtol=1e-4, atol=1e-3)


def test_alignment_of_the_released_family() -> None:
    with torch.device("meta"):
        matches = align(
            DetectionModel(load_architecture("yolov5n")), DetectionModel(load_architecture("yolov5n-spd-released"))
        )
    assert [each.target for each in matches] == list(range(31))
    assert [each.source for each in matches][-1] == 24
    kinds = [each.relation for each in matches]
    assert kinds.count(Relation.PHASES) == kinds.count(Relation.FULL_RESOLUTION) == 6
    assert kinds[0] is Relation.REWRITTEN


# Model, tensors taken and in all, rewritten ones, layers begun by a layer of another number (the model's: the file's).
BY_WORK = {
    "yolov5n-p234": (310, 348, 0, {22: 18, 24: 20}),
    "yolov5n-spd-p234": (310, 348, 6, {22: 18, 24: 20}),
    "yolov5n-spd-lite-p234": (274, 348, 0, {24: 20}),
    "yolov5n-spd-p2": (348, 422, 7, {25: 18, 27: 20, 28: 21, 30: 23}),
    "yolov5n-small": (186, 254, 0, {8: 14, 11: 17}),
    "yolov5n-spd-small": (186, 254, 4, {8: 14, 11: 17}),
    "yolov5n-spd-lite-small": (162, 254, 0, {8: 14, 11: 17}),
    "yolov5n6": (263, 458, 0, {19: 13, 20: 14, 23: 17, 24: 18, 26: 20, 27: 21}),
}


@pytest.mark.parametrize("name", BY_WORK)
def test_layers_are_taken_by_their_work(name: str) -> None:
    taken, total, rewritten, moved = BY_WORK[name]
    source, model = trained("yolov5n"), target(name)
    report = transfer_weights(model, weights_of(source))
    assert (len(report.taken), report.total, len(report.rewritten)) == (taken, total, rewritten)
    assert report.moved == tuple(f"{ours} as {theirs}" for ours, theirs in moved.items()) and not report.exact
    for ours, theirs in moved.items():
        names = [each.removeprefix(f"model.{ours}.") for each in report.taken if each.startswith(f"model.{ours}.")]
        assert "bn.weight" in names or "cv3.bn.weight" in names
        for each in names:
            if f"model.{ours}.{each}" not in report.rewritten:
                expected, found = (
                    source.state_dict()[f"model.{theirs}.{each}"],
                    model.state_dict()[f"model.{ours}.{each}"],
                )
                if found.shape != expected.shape:  # of a layer that reads another map behind those of the file's
                    assert not found[:, expected.shape[1] :].any()
                    found = found[:, : expected.shape[1]]
                assert torch.equal(found, expected)


@pytest.mark.parametrize("name", ["yolov5n-p234", "yolov5n-spd-p234"])
def test_a_new_finest_level_leaves_the_others_as_the_same_function(name: str) -> None:
    source, model = trained("yolov5n"), target(name)
    report = transfer_weights(model, weights_of(source))
    images = torch.rand(1, 3, 128, 64)
    with torch.inference_mode():
        found, expected = model(images).levels, source(images).levels
    for ours, theirs in zip(found[1:], expected[:2], strict=True):  # strides 8 and 16
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)
    assert torch.equal(model.anchors[1:], source.anchors[:2]) and torch.equal(model.anchors[0], source.anchors[0] / 2)
    first, second, third = report.lines()
    assert first.startswith("start.pt: took 310 of 348 tensors (layers 0-10, 13-14, 17, 22, 24-25)")
    assert second.startswith(
        "not taken: layers 18 (6 tensors), 21 (30 tensors), 25 (2 tensors); anchors are the file's, "
    )
    assert second.endswith("scaled from the next level at stride 4")
    assert third == "by their work: layers 22 as 18, 24 as 20; the head's strides 8, 16"


def test_levels_take_classes_by_name() -> None:
    source, model = trained("yolov5n", ("cat", "dog", "hen")), target("yolov5n-p234", ("cow", "dog"))
    report = transfer_weights(model, weights_of(source))
    assert "classes 3 -> 2: 1 of them taken by name" in report.lines()[1]
    old, new = source.get_parameter("model.24.m.1.bias").view(3, 8), model.get_parameter("model.25.m.2.bias").view(3, 7)
    assert torch.equal(new[:, :5], old[:, :5]) and torch.equal(new[:, 6], old[:, 6])


def test_other_classes_leave_the_levels_fresh() -> None:
    model = target("yolov5n-p234", ("car", "bus"))
    fresh = {name: each.clone() for name, each in model.state_dict().items() if ".25.m." in name}
    report = transfer_weights(model, weights_of(trained("yolov5n")))
    assert report.left[-6:] == tuple(fresh) and "classes 3 -> 2: the head starts fresh" in report.lines()[1]


@pytest.mark.parametrize(("name", "said"), [("yolov5n", "a head of another kind starts fresh"), ("yolov5n-u", "")])
def test_a_head_without_anchors_may_have_other_levels(name: str, said: str) -> None:
    plain = load_architecture("yolov5n-p234").as_dict()
    plain["head"][-1] = [plain["head"][-1][0], 1, "AnchorFreeDetect", ["nc"]]
    model = DetectionModel(Architecture.from_dict(plain | {"anchors": 0}), names=NAMES)
    report = transfer_weights(model, weights_of(trained(name)))
    assert report.notes == ((said,) if said else ()) and report.levels == (() if said else (8, 16))
    assert any(each.startswith("model.25.cv2.1.") for each in report.taken) is not bool(said)


def test_a_layer_that_reads_a_map_more_begins_as_the_same_function() -> None:
    """The neck's stage of stride 8 reads space-to-depth of P2 behind the maps that YOLOv5's reads."""
    source, model = trained("yolov5n"), DetectionModel(joined_ways(), names=NAMES).eval()
    report = transfer_weights(model, weights_of(source))
    assert "layer 12 reads 32 channels more, which count for nothing at first" in report.notes
    maps = torch.rand(1, 160, 4, 4)
    with torch.inference_mode():
        torch.testing.assert_close(model.model[12](maps), source.model[17](maps[:, :128]), rtol=1e-4, atol=1e-5)


def test_a_small_model_takes_the_classes_of_another_by_name() -> None:
    """Branches of one 3x3 convolution."""
    source = DetectionModel(joined_ways(), names=("cat", "dog", "hen"))
    model, fresh = (DetectionModel(joined_ways(), names=("dog", "cow")) for _ in range(2))
    fresh.load_state_dict(model.state_dict())
    report = transfer_weights(model, weights_of(source))
    assert "classes 3 -> 2: 1 of them taken by name" in report.lines()[1]
    for level in (0, 1):
        name = f"model.13.cv3.{level}.1.bias"
        old, new, before = (each.get_parameter(name) for each in (source, model, fresh))
        assert torch.equal(new[0], old[1]) and torch.equal(new[1], before[1])
        name = f"model.13.cv2.{level}.1.weight"
        assert torch.equal(model.get_parameter(name), source.get_parameter(name))
    assert transfer_weights(DetectionModel(joined_ways(), names=source.names), weights_of(source)).exact


def test_branches_without_convolutions_inside_take_classes_by_name_too() -> None:
    source, model = trained("yolov5n-small", ("cat", "dog", "hen")), target("yolov5n-small", ("dog", "cow"))
    report = transfer_weights(model, weights_of(source))
    assert "classes 3 -> 2: 1 of them taken by name" in report.lines()[1]
    fresh = target("yolov5n-small", ("dog", "cow"))
    for level in (0, 1):
        for kind in ("weight", "bias"):
            name = f"model.18.cv3.{level}.0.{kind}"
            old, new, before = (each.get_parameter(name) for each in (source, model, fresh))
            assert torch.equal(new[0], old[1]) and torch.equal(new[1], before[1])
            name = f"model.18.cv2.{level}.0.{kind}"
            assert torch.equal(model.get_parameter(name), source.get_parameter(name))
    assert transfer_weights(target("yolov5n-small", source.names), weights_of(source)).exact
    wider = load_architecture("yolov5n-small").as_dict()
    wider["head"][-3][-1] = [256, 3, 1]  # 64 channels instead of 48 in front of the finest level's branches
    report = transfer_weights(DetectionModel(Architecture.from_dict(wider), names=source.names), weights_of(source))
    assert report.levels == (16,)


def test_branches_of_another_form_start_fresh() -> None:
    deeper = joined_ways().as_dict()
    deeper["head"][-1][-1] = ["nc", 224, 2]
    model = DetectionModel(Architecture.from_dict(deeper), names=NAMES)
    report = transfer_weights(model, weights_of(DetectionModel(joined_ways(), names=NAMES)))
    assert {int(name.split(".")[1]) for name in report.left} == {13} and not report.exact
    assert report.levels == () and "the branches of the head have another form and start fresh" in report.notes
    assert not any(name.startswith("model.13.") for name in report.taken)


def test_levels_that_do_not_fit_are_not_said_to_be_taken() -> None:
    """Stride 16 is a level of both heads, whose branches are 64 and 40 channels wide."""
    report = transfer_weights(target("yolov5n-small"), weights_of(trained("yolov5n-u")))
    assert report.levels == () and "the branches of the head have another form and start fresh" in report.notes


def test_roles_follow_the_graph() -> None:
    with torch.device("meta"):
        roles = layers_by_role(DetectionModel(load_architecture("yolov5n-p234")))
    eight = {(role.part, role.work): index for role, index in roles.items() if role.stride == 8}
    assert eight == {
        ("backbone", "downsampling"): 3,
        ("backbone", "C3"): 4,
        ("top-down", "C3"): 17,
        ("top-down", "Conv"): 18,
    }
    assert [index for role, index in roles.items() if role.part == "bottom-up"] == [22, 24]


def test_other_sizes_have_nothing_in_common() -> None:
    model = target("yolov5s")
    before = {name: each.clone() for name, each in model.state_dict().items()}
    report = transfer_weights(model, weights_of(trained("yolov5n")))
    assert report.taken == () and "took 0 of 348 tensors" in report.lines()[0]
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())


def test_classes_are_taken_by_name() -> None:
    source = trained("yolov5n", ("cat", "dog", "hen"))
    model = target("yolov5n-spd", ("cow", "dog"))
    report = transfer_weights(model, weights_of(source))
    assert "classes 3 -> 2: 1 of them taken by name" in report.lines()[1]
    old = source.get_parameter("model.24.m.0.bias").view(3, 8)
    new = model.get_parameter("model.24.m.0.bias").view(3, 7)
    fresh = target("yolov5n-spd", ("cow", "dog")).get_parameter("model.24.m.0.bias").view(3, 7)
    assert (
        torch.equal(new[:, :5], old[:, :5])
        and torch.equal(new[:, 6], old[:, 6])
        and torch.equal(new[:, 5], fresh[:, 5])
    )


def test_other_classes_start_with_a_fresh_head() -> None:
    model = target("yolov5n", ("car", "bus"))
    fresh = {name: each.clone() for name, each in model.state_dict().items() if ".24.m." in name}
    report = transfer_weights(model, weights_of(trained("yolov5n")))
    assert report.left == tuple(fresh) and "classes 3 -> 2: the head starts fresh" in report.lines()[1]
    assert all(torch.equal(model.state_dict()[name], each) for name, each in fresh.items())
    assert len(report.taken) == report.total - 6


def test_class_rows() -> None:
    rows = class_rows(("a", "b", "c"), ("c", "x", "a"))
    assert rows is not None and rows.tolist() == [0, 1, 2, 3, 4, 7, -1, 5]
    same_count = class_rows(("a", "b"), ("x", "y"))
    assert same_count is not None and same_count.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert class_rows(("a", "b"), ("x",)) is None


@pytest.mark.parametrize("end", ["yolov5n", "yolov5n-spd", "yolov5n-spd-released"])
def test_grey_images_give_what_grey_rgb_gave(end: str) -> None:
    source, model = trained("yolov5n"), target(end, channels=1)
    report = transfer_weights(model, weights_of(source))
    assert "input channels 3 -> 1" in report.lines()[1] and report.left == () and not report.exact
    grey = torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        found, expected = model.predict(grey), source.predict(grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(found.boxes, expected.boxes, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("end", ["yolov5n", "yolov5n-spd", "yolov5n-spd-released"])
def test_a_fourth_channel_starts_without_effect(end: str) -> None:
    source, model = trained("yolov5n"), target(end, channels=4)
    report = transfer_weights(model, weights_of(source))
    assert "input channels 3 -> 4: the new ones start at zero" in report.lines()[1]
    images = torch.rand(1, 4, 64, 64)
    with torch.inference_mode():
        found, expected = model.predict(images), source.predict(images[:, :3])
    torch.testing.assert_close(found.boxes, expected.boxes, rtol=1e-4, atol=1e-3)


def test_anchors_of_an_open_architecture_are_the_files() -> None:
    source = trained("yolov5n")
    source.set_anchors(source.anchors * 1.5)
    model = DetectionModel(load_architecture("yolov5n-spd").with_anchor_count(3), names=NAMES)
    report = transfer_weights(model, weights_of(source))
    assert report.exact and report.notes == ("anchors are the file's",)
    assert torch.equal(model.anchors, source.anchors)


def test_anchors_of_the_architecture_stay() -> None:
    source, model = trained("yolov5n"), target("yolov5n-spd")
    own = model.anchors.clone()
    source.set_anchors(source.anchors * 1.5)
    report = transfer_weights(model, weights_of(source))
    assert torch.equal(model.anchors, own) and not report.exact and report.left == ()
    assert report.lines()[1] == "not taken: nothing; anchors differ from the file's: the model's own are kept"


def test_other_numbers_of_anchors_start_with_a_fresh_head() -> None:
    model = DetectionModel(load_architecture("yolov5n").with_anchor_count(4), names=NAMES)
    report = transfer_weights(model, weights_of(trained("yolov5n")))
    assert len(report.left) == 6 and "anchors 3x3 -> 3x4: the model's own are kept" in report.lines()[1]
