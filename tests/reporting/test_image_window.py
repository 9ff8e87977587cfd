"""The window of --view-img, without a display and with a stand-in for OpenCV's."""

from __future__ import annotations

import sys

import cv2
import numpy as np
import pytest

from utils.reporting import image_window
from utils.reporting.image_window import ImageWindow, has_display

IMAGE = np.zeros((20, 30, 3), np.uint8)
IMAGE[..., 0] = 200  # red


class Screen:
    """What OpenCV was asked to do, in order; ``keys`` are those that are pressed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, keys: str = "") -> None:
        self.calls: list[tuple[object, ...]] = []
        self.keys = [ord(key) for key in keys]
        monkeypatch.setattr(image_window, "has_display", lambda: True)
        monkeypatch.setattr(cv2, "namedWindow", lambda title, flags: self.calls.append(("open", title)))
        monkeypatch.setattr(cv2, "resizeWindow", lambda title, w, h: self.calls.append(("size", title, w, h)))
        monkeypatch.setattr(cv2, "imshow", lambda title, image: self.calls.append((title, *image[0, 0].tolist())))
        monkeypatch.setattr(cv2, "destroyWindow", lambda title: self.calls.append(("close", title)))
        monkeypatch.setattr(cv2, "waitKey", lambda delay: self.keys.pop(0) if self.keys else -1)


@pytest.mark.parametrize(
    ("platform", "variables", "there"),
    [
        ("linux", {}, False),
        ("linux", {"DISPLAY": ":0"}, True),
        ("linux", {"WAYLAND_DISPLAY": "wayland-0"}, True),
        ("linux", {"DISPLAY": ""}, False),
        ("darwin", {}, True),
        ("win32", {}, True),
    ],
)
def test_where_there_is_a_display(
    monkeypatch: pytest.MonkeyPatch, platform: str, variables: dict[str, str], there: bool
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert has_display() is there


def test_a_window_of_each_title_is_opened_once_in_the_size_of_its_image(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(monkeypatch)
    window = ImageWindow()
    for title in ("a", "a", "b"):
        window.show(title, IMAGE)
    window.close()
    assert screen.calls[:7] == [
        ("open", "a"),
        ("size", "a", 30, 20),
        ("a", 0, 0, 200),  # BGR
        ("a", 0, 0, 200),
        ("open", "b"),
        ("size", "b", 30, 20),
        ("b", 0, 0, 200),
    ]
    assert sorted(screen.calls[7:]) == [("close", "a"), ("close", "b")]
    assert not window.closed


@pytest.mark.parametrize(("keys", "closed"), [("", False), ("x", False), ("q", True), ("\x1b", True), ("qx", True)])
def test_q_and_escape_end(monkeypatch: pytest.MonkeyPatch, keys: str, closed: bool) -> None:
    Screen(monkeypatch, keys)
    window = ImageWindow()
    for _ in range(2):
        window.show("a", IMAGE)
    assert window.closed is closed


def test_without_a_display_it_is_said_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    screen = Screen(monkeypatch)
    monkeypatch.setattr(image_window, "has_display", lambda: False)
    window = ImageWindow()
    for _ in range(3):
        window.show("a", IMAGE)
    window.close()
    assert screen.calls == [] and not window.closed
    assert [record.getMessage() for record in caplog.records] == [
        "--view-img: there is no display here; images are not shown"
    ]


def test_an_opencv_without_windows_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Screen(monkeypatch)

    def refuse(title: str, image: np.ndarray) -> None:
        raise cv2.error("The function is not implemented")

    monkeypatch.setattr(cv2, "imshow", refuse)
    window = ImageWindow()
    for _ in range(3):
        window.show("a", IMAGE)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "opencv-python-headless" in line and not window.closed
