"""Which parameters each form of --freeze leaves as they are."""

from __future__ import annotations

import pytest

from models.yolo import DetectionModel
from tests.exporting.small_model import small_model
from utils.training.starting_model import freeze_layers
from utils.user_error import UsageError


@pytest.fixture(scope="module")
def model() -> DetectionModel:
    return small_model()


def frozen_layers(model: DetectionModel, *wanted: str) -> set[int]:
    """Numbers of the layers all of whose parameters are frozen; no layer is frozen in part."""
    names = freeze_layers(model, wanted)
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert set(names) == {name for name, _ in model.named_parameters()} - learning
    frozen, rest = ({int(name.split(".")[1]) for name in some} for some in (names, learning))
    assert not frozen & rest
    return frozen


def layers_with_parameters(model: DetectionModel) -> set[int]:
    return {int(name.split(".")[1]) for name, _ in model.named_parameters()}


def test_one_number_is_a_count_and_several_are_layers(model: DetectionModel) -> None:
    layers = layers_with_parameters(model)
    assert frozen_layers(model, "0") == set()
    assert frozen_layers(model, "2") == layers & {0, 1}
    assert frozen_layers(model, "0", "2") == layers & {0, 2}
    last = len(model.model) - 1
    assert frozen_layers(model, f"model.{last}") == {last}


def test_a_later_call_frees_what_an_earlier_one_froze(model: DetectionModel) -> None:
    frozen_layers(model, "2")
    assert frozen_layers(model, "0") == set()


def test_a_name_is_whole_up_to_a_point(model: DetectionModel) -> None:
    names = [name for name, _ in model.named_parameters()]
    whole = names[0]
    assert freeze_layers(model, (whole,)) == (whole,)
    stem = whole.rpartition(".")[0]
    assert freeze_layers(model, (stem,)) == tuple(name for name in names if name.startswith(f"{stem}."))
    # model.1 is not the beginning of model.10; of a small model the same is seen by a piece of a name.
    with pytest.raises(UsageError, match="no parameter is called so"):
        freeze_layers(model, (whole[:-1],))


@pytest.mark.parametrize(
    ("wanted", "line"),
    [
        (("99",), "--freeze 99: the model has"),
        (("0", "99"), "--freeze 99: the model has"),
        (("model.99",), "--freeze model.99: no parameter is called so"),
        (("head",), "--freeze head: no parameter is called so"),
        (("model",), "--freeze model: nothing would be left to train"),
    ],
)
def test_what_cannot_be_frozen(model: DetectionModel, wanted: tuple[str, ...], line: str) -> None:
    with pytest.raises(UsageError, match=line):
        freeze_layers(model, wanted)


def test_something_has_to_be_left(model: DetectionModel) -> None:
    with pytest.raises(UsageError, match="nothing would be left to train"):
        freeze_layers(model, (str(len(model.model)),))
