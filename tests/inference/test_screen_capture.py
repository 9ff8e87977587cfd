"""Screen capture through a stand-in for mss, as test machines have no screen."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

from utils.inference.frame_sources import open_source
from utils.inference.frames import Frame
from utils.inference.live_sources import ScreenPart, ScreenSource
from utils.user_error import UserError


class ScreenShotError(Exception):
    pass


class Screen:
    """Two screens of 40 x 30 beside each other; pixel (x, y) is B = x, G = y, R = 200."""

    def __init__(self) -> None:
        side = {"top": 0, "height": 30, "width": 40}
        self.monitors = [{**side, "left": 0, "width": 80}, {**side, "left": 0}, {**side, "left": 40}]
        self.closed = False

    def grab(self, window: dict[str, int]) -> np.ndarray:
        if window["left"] + window["width"] > 80:
            raise ScreenShotError("outside of the screen")
        y, x = np.mgrid[0 : window["height"], 0 : window["width"]]
        values = (x + window["left"], y + window["top"], np.full_like(x, 200), np.full_like(x, 255))
        return np.stack(values, axis=-1).astype(np.uint8)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def mss(monkeypatch: pytest.MonkeyPatch) -> None:
    package, errors = types.ModuleType("mss"), types.ModuleType("mss.exception")
    package.MSS = Screen  # type: ignore[attr-defined]
    errors.ScreenShotError = ScreenShotError  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mss", package)
    monkeypatch.setitem(sys.modules, "mss.exception", errors)


@pytest.mark.usefixtures("mss")
@pytest.mark.parametrize(
    ("source", "shape", "corner"),
    [
        ("screen", (30, 80, 3), [200, 0, 0]),
        ("screen 2", (30, 40, 3), [200, 0, 40]),
        ("screen 5 6 20 10", (10, 20, 3), [200, 6, 5]),
        ("screen 2 5 6 20 10", (10, 20, 3), [200, 6, 45]),
    ],
)
def test_parts_of_the_screen(source: str, shape: tuple[int, ...], corner: list[int]) -> None:
    screen = open_source(source)
    assert isinstance(screen, ScreenSource) and screen.live and screen.expected_frames() is None
    seen: list[Frame] = []
    for group in screen.groups(4, lambda: len(seen) >= 2):
        seen.extend(group)
    assert [frame.index for frame in seen] == [0, 1]
    assert seen[0].image.shape == shape and seen[0].image[0, 0].tolist() == corner  # RGB
    screen.close()


@pytest.mark.usefixtures("mss")
def test_what_is_not_there() -> None:
    with pytest.raises(UserError, match=r"screens 0 \(all\) to 2"):
        open_source("screen 3")
    with pytest.raises(UserError, match="outside of the screen"):
        next(open_source("screen 2 10 0 40 30").groups(1, lambda: False))


@pytest.mark.parametrize("source", ["screen 1 2", "screen 1 2 3", "screen 1 2 3 4 5 6", "screen -1", "screen 0 0 0 9"])
def test_wrong_forms(source: str) -> None:
    with pytest.raises(UserError):
        ScreenPart.parse(source)


def test_without_mss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mss", None)
    with pytest.raises(UserError, match=r"screen: needs mss \(pip install mss\)"):
        open_source("screen")
