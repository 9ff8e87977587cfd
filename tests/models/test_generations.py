"""Checkpoints of every generation that users have: releases 5.0 to 7.0, trained ones, the SPD authors', old formats."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from models.architecture import Architecture
from models.common import SPD, Focus
from models.pickles import read_pickled
from models.weights import load_model, read_weights
from models.yolo import DetectionModel, load_architecture
from tests.models.pickled_fixtures import (
    Named,
    pickled_detector,
    training_state,
    write_stream,
    write_tar,
    write_zip,
)
from utils.user_error import UserError

RELEASE_5 = {
    "nc": 2,
    "depth_multiple": 0.33,
    "width_multiple": 0.25,
    "anchors": [[10, 13, 16, 30, 33, 23], [30, 61, 62, 45, 59, 119]],
    "backbone": [
        [-1, 1, "Focus", [64, 3]],
        [-1, 1, "Conv", [128, 3, 2]],
        [-1, 3, "C3", [128]],
        [-1, 1, "Conv", [256, 3, 2]],
        [-1, 1, "SPP", [256, [5, 9, 13]]],
        [-1, 3, "C3", [256, False]],
    ],
    "head": [
        [-1, 1, "Conv", [128, 3, 2]],
        [[5, 6], 1, "Detect", ["nc", "anchors"]],
    ],
}


def rounded(model: DetectionModel) -> DetectionModel:
    """fp16 values in fp32, as every release stores them; anchors that tell from the file's."""
    model.set_anchors((model.anchors * 1.25).round())
    return model.half().float().eval()


def modern(**settings: Any) -> DetectionModel:
    torch.manual_seed(2)
    return rounded(DetectionModel(load_architecture("yolov5n"), names=("cat", "dog"), **settings))


def release_5() -> DetectionModel:
    torch.manual_seed(3)
    return rounded(DetectionModel(Architecture.from_dict(RELEASE_5), names=("cat", "dog")))


def with_anchor_grid(detector: Named) -> Named:
    head = list(detector.__dict__["_modules"]["model"].__dict__["_modules"].values())[-1]
    buffers = head.__dict__["_buffers"]
    buffers["anchor_grid"] = buffers["anchors"].clone().view(-1, 1, 3, 1, 1, 2)
    return detector


def checkpoint_5() -> tuple[DetectionModel, Any]:
    model = release_5()
    return model, {"epoch": -1, "model": with_anchor_grid(pickled_detector(model)), "optimizer": None, "ema": None}


def checkpoint_6() -> tuple[DetectionModel, Any]:
    model = modern()
    return model, {"epoch": -1, "best_fitness": None, "model": pickled_detector(model), "ema": None, "updates": None}


def checkpoint_7() -> tuple[DetectionModel, Any]:
    model = modern()
    detector = pickled_detector(model, root="models.yolo.DetectionModel", names={0: "cat", 1: "dog"})
    return model, {"epoch": -1, "model": detector, "ema": None, "opt": None, "git": None, "date": "2022-11-22"}


def trained() -> tuple[DetectionModel, Any]:
    """The average, not the model of the last step, is what the run evaluated."""
    torch.manual_seed(9)
    last = DetectionModel(load_architecture("yolov5n"), names=("cat", "dog")).eval()
    model = modern()
    return model, training_state() | {"model": pickled_detector(last), "ema": pickled_detector(model)}


def bare_module() -> tuple[DetectionModel, Any]:
    model = modern()
    return model, pickled_detector(model)


def leaky() -> tuple[DetectionModel, Any]:
    """An activation edited in the source: no key of the architecture tells of it."""
    torch.manual_seed(4)
    architecture = Architecture.from_dict(RELEASE_5 | {"activation": "nn.LeakyReLU(0.1)"})
    model = rounded(DetectionModel(architecture, names=("cat", "dog")))
    return model, {"model": pickled_detector(model)}


def spd_authors() -> tuple[DetectionModel, Any]:
    torch.manual_seed(5)
    architecture = load_architecture("yolov5n-spd-released")
    model = rounded(DetectionModel(architecture, names=("cat", "dog")))
    detector = pickled_detector(model)
    for section in ("backbone", "head"):
        for row in detector.__dict__["yaml"][section]:
            if row[2] == "SPD":
                row[2:] = ["space_to_depth", [1]]
    for layer in detector.__dict__["_modules"]["model"].__dict__["_modules"].values():
        if type(layer).label == "models.common.SPD":
            type(layer).label = "models.common.space_to_depth"
    return model, {"model": detector}


MAKERS = [checkpoint_5, checkpoint_6, checkpoint_7, trained, bare_module, leaky, spd_authors]


@pytest.mark.parametrize(
    ("write", "make"),
    [
        *((write_zip, make) for make in MAKERS),
        *((write_stream, make) for make in (checkpoint_5, trained, spd_authors)),
        *((write_tar, make) for make in (checkpoint_5, spd_authors)),
    ],
)
def test_every_generation_gives_its_function_back(
    write: Callable[[Any, Path], None], make: Callable[[], tuple[DetectionModel, Any]], tmp_path: Path
) -> None:
    model, content = make()
    write(content, tmp_path / "some.pt")
    again = load_model(tmp_path / "some.pt")
    assert again.names == ("cat", "dog")
    assert torch.equal(again.anchors, model.anchors)
    expected = model.state_dict()
    assert set(again.state_dict()) == set(expected)
    assert all(torch.equal(value, expected[name]) for name, value in again.state_dict().items())
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        # The weights are the same to the bit; sums over them, which may lie elsewhere in memory, need not be.
        torch.testing.assert_close(again.predict(images).boxes, model.predict(images).boxes, rtol=1e-4, atol=1e-3)


def test_old_formats_are_what_torch_reads(tmp_path: Path) -> None:
    """The stream format against torch's own opener; views of one storage included."""
    base = torch.arange(12.0)
    torch.save({"all": base, "part": base[3:9].view(2, 3)}, tmp_path / "v.pt", _use_new_zipfile_serialization=False)
    file = read_pickled(tmp_path / "v.pt")
    opened = torch.load(tmp_path / "v.pt", weights_only=True)
    assert all(torch.equal(file.tensor(file.content[name]), opened[name]) for name in opened)


@pytest.mark.parametrize("write", [write_zip, write_stream, write_tar])
def test_hostile_files_are_refused_in_every_format(write: Callable[[Any, Path], None], tmp_path: Path) -> None:
    class Removes:
        def __reduce__(self) -> Any:
            return print, ("the file ran",)

    write({"model": Removes()}, tmp_path / "hostile.pt")
    with pytest.raises(UserError, match=r"refused.*builtin.*print") as caught:
        read_weights(tmp_path / "hostile.pt")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("write", [write_stream, write_tar])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_cut_files_give_one_line(write: Callable[[Any, Path], None], share: float, tmp_path: Path) -> None:
    path = tmp_path / "cut.pt"
    write(checkpoint_5()[1], path)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])
    with pytest.raises(UserError, match=r"cut\.pt") as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"yaml": None}, "no architecture"),
        ({"yaml": {"nc": 2}}, "key 'anchors' is missing"),
        ({"stride": None}, "no strides"),
        ({"names": 5}, "class names are 5"),
    ],
)
def test_models_without_what_a_detector_needs(change: dict[str, Any], told: str, tmp_path: Path) -> None:
    detector = pickled_detector(release_5())
    detector.__dict__.update(change)
    write_zip({"model": detector}, tmp_path / "odd.pt")
    with pytest.raises(UserError, match=told):
        load_model(tmp_path / "odd.pt")


def test_names_that_do_not_fit_the_classes_become_numbers(tmp_path: Path) -> None:
    detector = pickled_detector(release_5(), names=["only one"])
    write_zip({"model": detector}, tmp_path / "odd.pt")
    assert read_weights(tmp_path / "odd.pt").names == ("0", "1")


def test_the_leaky_activation_is_found(tmp_path: Path) -> None:
    write_zip(leaky()[1], tmp_path / "leaky.pt")
    assert read_weights(tmp_path / "leaky.pt").architecture.activation == "nn.LeakyReLU(0.1)"


def test_the_authors_layers_are_the_released_familys(tmp_path: Path) -> None:
    write_zip(spd_authors()[1], tmp_path / "spd.pt")
    model = load_model(tmp_path / "spd.pt")
    assert isinstance(model.model[0], Focus) and isinstance(model.model[2], SPD)
