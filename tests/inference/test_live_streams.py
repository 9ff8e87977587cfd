"""Live streams from a real server on this machine: newest frame, lost connections, ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.inference.mjpeg_server import Camera, cameras_on_loopback
from tests.runtime.loopback import closed_port_address
from utils.inference.frame_sources import open_source
from utils.inference.frames import Frame, VideoFacts
from utils.inference.live_sources import (
    LiveSource,
    StreamPatience,
    is_stream_address,
    listed_streams,
    shown_address,
)
from utils.runtime.threads import never
from utils.user_error import UserError

SHORT = StreamPatience(tries=3, first_wait=0.01)


def grey(value: int) -> np.ndarray:
    return np.full((48, 64, 3), value, dtype=np.uint8)


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end, "nothing happened for 20 seconds"
        time.sleep(0.01)


def shade(frame: Frame) -> int:
    return round(float(frame.image.mean()))


def test_frames_arrive_in_order_and_the_stream_ends() -> None:
    camera = Camera([grey(10 * k) for k in range(1, 21)], [20])
    with cameras_on_loopback(a=camera) as addresses:
        source = LiveSource([addresses["a"]], patience=SHORT)
        frames = [frame for group in source.groups(1, never) for frame in group]
        source.close()
    assert source.streams[0].frames == 20 and source.skipped == []
    indices = [frame.index for frame in frames]
    assert indices == sorted(set(indices)) and indices[-1] == 19
    assert all(abs(shade(frame) - 10 * (frame.index + 1)) <= 1 for frame in frames)
    assert frames[0].image.shape == (48, 64, 3) and frames[0].path.name.endswith("_a")
    arrivals = [frame.seconds for frame in frames if frame.seconds is not None]
    assert len(arrivals) == len(frames) and arrivals == sorted(arrivals)
    assert isinstance(frames[0].video, VideoFacts) and frames[0].video.frames_per_second > 0


def test_the_newest_frame_wins() -> None:
    camera = Camera([grey(10 * k) for k in range(1, 21)], [20])
    with cameras_on_loopback(a=camera) as addresses:
        source = LiveSource([addresses["a"]], patience=SHORT)
        groups = source.groups(1, never)
        next(groups)
        wait_until(lambda: source.streams[0].frames == 20)  # the consumer was away for a while
        rest = [frame.index for group in groups for frame in group]
        source.close()
    assert rest == [19], "the frames between are not waited for"


def test_a_dropped_connection_is_sought_again(caplog: pytest.LogCaptureFixture) -> None:
    camera = Camera([grey(100)], [-5, 7, -3])  # twice it breaks off in the middle of an image
    with cameras_on_loopback(a=camera) as addresses:
        source = LiveSource([addresses["a"]], patience=SHORT)
        frames = [frame for group in source.groups(1, never) for frame in group]
        source.close()
    assert camera.sent == 15
    assert 15 <= source.streams[0].frames <= 17  # an image cut in two may still be decoded, in part
    assert frames[-1].index >= 13
    waits = [line for line in caplog.messages if "trying again" in line]
    assert [("the connection ended" in line, "no connection" in line) for line in waits[:3]] == [(True, False)] * 3
    assert "no connection, trying again in 0.02 s" in waits[-1]
    assert "ended after" in caplog.messages[-1]


def test_two_streams_at_once() -> None:
    cameras = {"dark": Camera([grey(50)], [15]), "light": Camera([grey(200)], [10])}
    with cameras_on_loopback(**cameras) as addresses:
        source = LiveSource(list(addresses.values()), patience=SHORT)
        groups = list(source.groups(1, never))
        source.close()
    shades: dict[str, set[int]] = {}
    for group in groups:
        assert len({frame.path for frame in group}) == len(group) <= 2, "one frame of each stream at most"
        for frame in group:
            shades.setdefault(frame.path.name[-4:], set()).add(shade(frame) // 10)
    assert shades == {"dark": {5}, "ight": {20}}
    assert [stream.frames for stream in source.streams] == [15, 10]


def test_one_of_two_streams_is_missing() -> None:
    with cameras_on_loopback(a=Camera([grey(50)], [5])) as addresses:
        missing = addresses["a"].replace("/a", "/none")
        source = LiveSource([missing, addresses["a"]], patience=SHORT)
        assert [frame for group in source.groups(1, never) for frame in group] != []
        source.close()
    assert source.skipped == [f"{missing}: no frame"]


def test_no_stream_at_all(caplog: pytest.LogCaptureFixture) -> None:
    address = closed_port_address().replace("http://", "http://me:secret@") + "/a.mjpg"
    source = LiveSource([address], patience=SHORT)
    with pytest.raises(UserError, match="cannot be opened or gives no frame") as error:
        list(source.groups(1, never))
    assert "secret" not in str(error.value) + caplog.text


def test_stopping_while_a_stream_goes_on() -> None:
    camera = Camera([grey(50)], [10**9])
    with cameras_on_loopback(a=camera) as addresses:
        source = LiveSource([addresses["a"]], patience=SHORT)
        seen: list[Frame] = []
        for group in source.groups(1, lambda: len(seen) >= 3):
            seen.extend(group)
        source.close()
        assert len(seen) == 3 and source.streams[0].ended


def test_stride() -> None:
    with cameras_on_loopback(a=Camera([grey(50)], [12])) as addresses:
        source = LiveSource([addresses["a"]], vid_stride=4, patience=SHORT)
        indices = {frame.index for group in source.groups(1, never) for frame in group}
        source.close()
    assert indices <= {0, 4, 8} and 8 in indices


def test_a_camera_is_opened_by_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter.fourcc(*"FFV1"), 10, (64, 48))
    for value in (10, 20, 30):
        writer.write(grey(value))
    writer.release()
    opened: list[object] = []
    real = cv2.VideoCapture

    def capture(device: object) -> cv2.VideoCapture:
        opened.append(device)
        return real(str(tmp_path / "v.avi"))

    monkeypatch.setattr(cv2, "VideoCapture", capture)
    source = open_source("2")
    assert isinstance(source, LiveSource)
    groups = source.groups(1, never)
    frame = next(groups)[0]
    source.close()
    assert opened == [2] and frame.path.name == "2" and shade(frame) in (10, 20, 30)


def test_waits_double_up_to_the_longest() -> None:
    patience = StreamPatience(tries=9, first_wait=0.5, longest_wait=3.0)
    assert [patience.wait(failures) for failures in (1, 2, 3, 4, 50)] == [0.5, 1, 2, 3, 3]


def test_list_of_streams(tmp_path: Path) -> None:
    file = tmp_path / "cameras.streams"
    file.write_text("# the yard\nrtsp://cam:554/1\n\n 0 \nhttps://host/a.mjpg\n")
    assert listed_streams(file) == ["rtsp://cam:554/1", "0", "https://host/a.mjpg"]
    assert isinstance(open_source(str(file)), LiveSource)
    for text, line in (("rtsp://cam\nimage.jpg\n", "line 2: image.jpg"), ("# none\n", "lists no stream")):
        file.write_text(text)
        with pytest.raises(UserError, match=line):
            open_source(str(file))


def test_names_of_streams() -> None:
    assert shown_address("rtsp://me:pw@cam:554/1?x=2") == "rtsp://cam:554/1?x=2"
    assert shown_address("0") == "0"
    streams, others = ("0", "RTSP://a", "http://h/x", "udp://@:1234"), ("a.jpg", "http:/", "1a")
    assert [text for text in (*streams, *others) if is_stream_address(text)] == list(streams)


def test_channels_of_one_camera_have_names_of_their_own() -> None:
    addresses = ["rtsp://cam/live?channel=1", "0", "rtsp://cam/live?channel=2", "rtsp://me:pw@cam/live?channel=3"]
    source = LiveSource(addresses)
    assert [str(path) for path in source.known] == ["cam_live", "0", "cam_live-2", "cam_live-3"]
    assert all(source.known.values())
