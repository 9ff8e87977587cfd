"""Sources of images: what each kind of --source holds, in which order, and what is skipped or refused."""

from __future__ import annotations

import os
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.runtime.loopback import Served, loopback_server
from tests.video_files import write_outlasted
from utils.inference import file_source
from utils.inference.file_source import MOST_LOST, FileSource, ListedAsTheyCome, video_length
from utils.inference.frame_sources import open_source
from utils.user_error import UserError


def image(value: int) -> np.ndarray:
    """Image (24, 32, 3) BGR, blue throughout of this value."""
    pixels = np.zeros((24, 32, 3), dtype=np.uint8)
    pixels[..., 0] = value
    return pixels


def write_video(path: Path, values: list[int], codec: str = "FFV1") -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 12.5, (32, 24))
    assert writer.isOpened()
    for value in values:
        writer.write(image(value))
    writer.release()
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images" / "inner").mkdir(parents=True)
    for name, value in (("b.png", 2), ("a.jpg", 1), ("inner/c.PNG", 3)):
        cv2.imwrite(str(tmp_path / "images" / name), image(value))
    (tmp_path / "images" / "notes.md").write_text("not an image")
    return tmp_path


def opened(source: Path | str, vid_stride: int = 1) -> FileSource:
    found = open_source(str(source), vid_stride)
    assert isinstance(found, FileSource)
    return found


def names(source: Path | str) -> list[str]:
    return [frame.path.name for frame in opened(source)]


def test_folder_glob_and_file(folder: Path) -> None:
    assert names(folder / "images") == ["a.jpg", "b.png"]
    assert names(folder / "images" / "*.png") == ["b.png"]
    assert names(folder / "images" / "**" / "*") == ["a.jpg", "b.png", "c.PNG"]
    (frame,) = opened(folder / "images" / "b.png")
    assert (frame.index, frame.video) == (0, None)
    assert frame.image.shape == (24, 32, 3) and frame.image[0, 0].tolist() == [0, 0, 2]  # RGB


@pytest.mark.case("Sources", "a folder with images in subfolders", "a line says how many; --recursive reads them")
def test_subfolders_are_read_if_asked_for_and_said_otherwise(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "images" / "inner" / "deep").mkdir()
    cv2.imwrite(str(folder / "images" / "inner" / "deep" / "a.png"), image(4))
    (folder / "images" / "loop").symlink_to(folder / "images")
    assert names(folder / "images") == ["a.jpg", "b.png"]
    assert caplog.messages == [f"{folder / 'images'}: 2 images in its subfolders left out; --recursive reads them too"]
    with pytest.raises(UserError, match="no images or videos there, but 4 images in its subfolders; --recursive reads"):
        open_source(str(folder))
    caplog.clear()
    (folder / "list.txt").write_text("images/inner\nimages/b.png\n")
    for source, expected in (
        ("images", ["a.jpg", "b.png", "c.PNG", "a.png"]),
        ("list.txt", ["c.PNG", "a.png", "b.png"]),
    ):
        found = open_source(str(folder / source), recursive=True)
        assert isinstance(found, FileSource) and [path.name for path in found.files] == expected
    assert caplog.messages == []


def test_text_list_keeps_its_order_and_sees_from_its_own_folder(folder: Path) -> None:
    (folder / "list.txt").write_text(f"images/b.png\n\n{folder / 'images' / 'a.jpg'}\r\nimages/inner\n")
    assert names(folder / "list.txt") == ["b.png", "a.jpg", "c.PNG"]


def test_text_list_names_the_wrong_line(folder: Path) -> None:
    (folder / "list.txt").write_text("images/b.png\nimages/z.png\n")
    with pytest.raises(UserError, match=r"list\.txt, line 2: .*z\.png: no such file"):
        open_source(str(folder / "list.txt"))


def test_brackets_in_a_file_name_are_no_pattern(folder: Path) -> None:
    cv2.imwrite(str(folder / "d[1].png"), image(4))
    assert names(folder / "d[1].png") == ["d[1].png"]


def test_video_frames_are_the_images_written(tmp_path: Path) -> None:
    source = opened(write_video(tmp_path / "a.avi", [10, 60, 110, 160, 210]))
    frames = list(source)
    assert source.expected_frames() == 5
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4]
    assert [int(frame.image[0, 0, 2]) for frame in frames] == [10, 60, 110, 160, 210]  # FFV1 loses nothing
    assert frames[0].video is not None and frames[0].video.frames_per_second == 12.5


def test_video_stride(tmp_path: Path) -> None:
    source = opened(write_video(tmp_path / "a.avi", [10, 60, 110, 160, 210]), vid_stride=2)
    assert source.expected_frames() == 3
    assert [(frame.index, int(frame.image[0, 0, 2])) for frame in source] == [(0, 10), (2, 110), (4, 210)]


def test_unreadable_files_are_named_and_skipped(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "images" / "a.jpg").write_bytes(b"broken")
    (folder / "images" / "c.avi").write_bytes(b"no video")
    source = opened(folder / "images")
    assert [frame.path.name for frame in source] == ["b.png"]
    assert [name in line for name, line in zip(("a.jpg", "c.avi"), source.skipped, strict=True)] == [True, True]
    assert len([record for record in caplog.records if "skipped" in record.getMessage()]) == 2


def test_video_cut_short_gives_the_frames_before(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", [10, 60, 110, 160, 210] * 20, "MJPG")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames = list(opened(path))
    assert 10 < len(frames) < 90


@pytest.mark.parametrize(("kept", "said"), [(1.0, False), (0.7, True)], ids=["whole", "cut short"])
def test_a_header_that_counts_frames_for_all_of_the_audio(tmp_path: Path, kept: float, said: bool) -> None:
    path = write_outlasted(tmp_path / "a.mkv", 10, audio_seconds=3.0)
    assert video_length(path) > 10 + MOST_LOST
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    source = opened(path)
    assert len(list(source)) == 10
    assert source.skipped == [f"{path}: no readable frame after number 9 of {video_length(path)}"] * said


def test_video_without_frames(tmp_path: Path) -> None:
    source = opened(write_video(tmp_path / "a.avi", []))
    assert list(source) == []
    assert len(source.skipped) == 1 and "a.avi" in source.skipped[0]


def test_groups_follow_the_order_across_files(folder: Path) -> None:
    write_video(folder / "images" / "aa.avi", [10, 60, 110])
    groups = list(opened(folder / "images").groups(2, lambda: False))
    order = [[(frame.path.name, frame.index) for frame in group] for group in groups]
    assert order == [[("a.jpg", 0), ("aa.avi", 0)], [("aa.avi", 1), ("aa.avi", 2)], [("b.png", 0)]]


def test_a_damaged_frame_costs_that_frame_only(tmp_path: Path) -> None:
    path = damaged_video(tmp_path / "a.avi", [10, 60, 110, 160, 210], damaged=2)
    source = opened(path)
    assert [frame.index for frame in source] == [0, 1, 3, 4]
    assert source.skipped == [f"{path}: frame 2 is not readable"]
    source = opened(path, 2)
    assert [frame.index for frame in source] == [0, 4]
    source = opened(path, 3)
    assert [frame.index for frame in source] == [0, 3]


def damaged_video(path: Path, values: list[int], damaged: int) -> Path:
    """A Motion JPEG video in which the content of one frame is zeros."""
    write_video(path, values, "MJPG")
    content = bytearray(path.read_bytes())
    starts = [match.end() for match in re.finditer(b"00dc.{4}(?=\xff\xd8)", content, re.DOTALL)]  # each frame's JPEG
    assert len(starts) == len(values)
    start = starts[damaged]
    size = int.from_bytes(content[start - 4 : start], "little")
    content[start : start + size] = bytes(size)
    path.write_bytes(content)
    return path


def test_lines_of_a_pipe_are_read_as_they_come(folder: Path) -> None:
    reading, writing = os.pipe()
    source = ListedAsTheyCome(reading)
    frames = source.groups(8, lambda: False)
    images = folder / "images"
    os.write(writing, f"{images / 'b.png'}\n{images / 'none.png'}\n\n{images}".encode())
    assert [frame.path.name for frame in next(frames)] == ["b.png"]  # while the writer is still at work
    os.close(writing)
    assert [frame.path.name for group in frames for frame in group] == ["a.jpg", "b.png"]  # the last line has no end
    assert source.expected_frames() is None
    assert source.skipped == [f"{images / 'none.png'}: no such file or folder"]
    os.close(reading)


def test_a_silent_pipe_does_not_hold_up_the_end() -> None:
    reading, writing = os.pipe()
    asked = iter([False, False, True])
    assert list(ListedAsTheyCome(reading).groups(1, lambda: next(asked))) == []
    os.close(reading)
    os.close(writing)


def test_an_image_at_an_address_is_fetched_and_kept_until_the_end(folder: Path) -> None:
    with loopback_server({"b.png?v=1": Served((folder / "images" / "b.png").read_bytes())}) as server:
        source = opened(server.url("b.png?v=1"))
    (frame,) = source
    assert frame.path.name == "b.png" and frame.image.shape == (24, 32, 3)
    source.close()
    assert not frame.path.exists()


def test_nothing_there(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("text")
    for source, reason in (
        (tmp_path, "no images or videos"),
        (tmp_path / "*.png", "no images or videos"),
        (tmp_path / "none", "no such file"),
        (tmp_path / "notes.md", "neither an image nor a video"),
        (tmp_path / "none.streams", "no such file"),
        ("gopher://host/a", "not an address that can be read"),
        ("https://youtu.be/abc", "yt-dlp -g"),
        ("screen one", "not of the form screen"),
    ):
        with pytest.raises(UserError, match=reason):
            open_source(str(source))


def test_a_video_whose_name_is_no_text_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_source.LOGGER, "disabled", True)  # pytest's processes cannot send such a name's line
    path = write_video(tmp_path / "plain.avi", [10]).rename(tmp_path / os.fsdecode(b"caf\xe9.avi"))
    source = FileSource((path,))
    assert source.expected_frames() == 0 and list(source) == []
    assert source.skipped == [f"{path}: not a readable video, as its name is not UTF-8"]
