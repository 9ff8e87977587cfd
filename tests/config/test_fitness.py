"""``--fitness``: what it may say, and the sum it gives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.config.command_line import parse_command_line
from utils.config.fitness import FIGURES, YOLOV5_MIX, Fitness
from utils.config.train_flags import TrainConfig
from utils.user_error import UsageError, UserError

# AP 0.3, AP50 0.5, AP75 0.25, AP_S 0.1, AP_M 0.4, no large object, mAP50 0.52, mAP50-95 0.31.
VALUES = dict(zip(FIGURES, (0.3, 0.5, 0.25, 0.1, 0.4, -1.0, 0.52, 0.31), strict=True))


@pytest.mark.parametrize(
    ("text", "terms", "value"),
    [
        ("AP_S", ((1.0, "AP_S"),), 0.1),
        ("0.3*AP+0.7*AP_S", ((0.3, "AP"), (0.7, "AP_S")), 0.09 + 0.07),
        (" .5*AP50 + 2*AP75 ", ((0.5, "AP50"), (2.0, "AP75")), 0.25 + 0.5),
        ("mAP50-95+AP_M", ((1.0, "mAP50-95"), (1.0, "AP_M")), 0.71),
        (YOLOV5_MIX, ((0.1, "mAP50"), (0.9, "mAP50-95")), 0.052 + 0.279),
    ],
)
def test_sums(text: str, terms: tuple[tuple[float, str], ...], value: float) -> None:
    fitness = Fitness.from_text(text)
    assert fitness.terms == terms and fitness.of(VALUES) == pytest.approx(value)
    assert Fitness.from_text(str(fitness)) == fitness


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "'' is not a figure or a weight * figure, as in 0.3*AP+0.7*AP_S"),
        ("AP+", "'' is not a figure"),
        ("0.3AP", "'0.3AP' is not a figure"),
        ("AP*0.3", "'AP*0.3' is not a figure"),
        ("AP-AP_S", "'AP-AP_S' is none of AP, AP50, AP75, AP_S, AP_M, AP_L, mAP50, mAP50-95"),
        ("-1*AP", "'-1*AP' is not a figure"),
        ("nan*AP", "'nan*AP' is not a figure"),
        ("1e-3*AP", "'1e-3*AP' is not a figure"),
        ("__import__('os')", "is not a figure"),
        ("ap_s", "'ap_s' is none of AP, AP50, AP75, AP_S, AP_M, AP_L, mAP50, mAP50-95"),
        ("AP+0.5*AP", "AP occurs twice"),
        ("0*AP+AP_S", "the weight of AP must be above 0"),
        ("٣*AP", "is not a figure"),
    ],
)
def test_what_is_no_sum_is_one_line(text: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_command_line(TrainConfig, [f"--fitness={text}"], prog="train.py", description="")
    message = str(caught.value)
    assert message.startswith(f"--fitness {text}: ") and told in message and "\n" not in message


def test_a_figure_of_objects_that_are_not_there_is_told() -> None:
    with pytest.raises(UserError) as caught:
        Fitness.from_text("0.3*AP+0.7*AP_L").of(VALUES)
    assert str(caught.value) == "--fitness 0.3*AP+0.7*AP_L: the validation images have no object that AP_L counts"


@given(st.floats(0, 1), st.floats(0, 1))
def test_the_default_is_yolov5s_mix_to_the_bit(map50: float, map50_95: float) -> None:
    figures = VALUES | {"mAP50": map50, "mAP50-95": map50_95}
    assert Fitness.from_text(YOLOV5_MIX).of(figures) == 0.1 * map50 + 0.9 * map50_95
