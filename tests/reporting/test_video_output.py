"""Annotated videos: when their frames are shown, what is heard, and what is left of one that cannot be written."""

from __future__ import annotations

import itertools
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.video_files import AUDIO_RATE, first_image, regular, seen, write_outlasted, write_video
from utils.inference.file_source import read_video
from utils.inference.frames import Frame, VideoFacts
from utils.reporting.video_output import VideoOutput
from utils.user_error import UserError

NTSC = Fraction(30_000, 1001)
IRREGULAR = [0.0, 0.04, 0.1, 0.15, 0.3, 0.31, 0.5, 1.0]


def copied(source: Path, folder: Path, vid_stride: int = 1, most: int | None = None) -> Path:
    """The source written anew, of ``most`` frames at most."""
    path = folder / f"copy{vid_stride}.mp4"
    frames = itertools.islice(read_video(source, vid_stride, pytest.fail), most)
    first = next(frames)
    output = VideoOutput(path, first, vid_stride)
    for frame in itertools.chain([first], frames):
        output.write(frame.image, frame)
    assert not path.exists(), "nobody reads half a video"
    output.close()
    assert not list(folder.glob("*.part"))
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
@pytest.mark.parametrize("rate", [Fraction(25), NTSC, Fraction(24_000, 1001), Fraction(25, 2)])
def test_the_rate_is_the_sources_exactly(tmp_path: Path, suffix: str, rate: Fraction) -> None:
    # Matroska has milliseconds: 0, 33, 67, 100 for frames of 33.367 ms.
    found = seen(copied(write_video(tmp_path / f"v{suffix}", regular(12, rate), rate), tmp_path))
    assert (found.codec, found.pixels, found.size) == ("h264", "yuv420p", (48, 64))
    assert found.rate == rate and len(found.times) == 12
    assert found.seconds == pytest.approx(12 / rate)


def test_an_image_every_ten_seconds(tmp_path: Path) -> None:
    rate = Fraction(1, 10)
    found = seen(copied(write_video(tmp_path / "v.mp4", regular(3, rate), rate), tmp_path))
    assert found.rate == rate and found.times == [0, 10, 20] and found.seconds == 30


def test_with_a_stride_it_lasts_as_long_with_fewer_frames(tmp_path: Path) -> None:
    source = write_video(tmp_path / "v.mp4", regular(12, NTSC), NTSC, audio="aac")
    whole, third = seen(copied(source, tmp_path)), seen(copied(source, tmp_path, 3))
    assert third.rate == NTSC / 3 and third.seconds == whole.seconds == pytest.approx(12 / NTSC)
    assert third.times == pytest.approx(whole.times[::3])
    assert (third.sound == whole.sound).all()


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_frames_of_an_irregular_rate_keep_their_times(tmp_path: Path, suffix: str) -> None:
    source = write_video(tmp_path / f"v{suffix}", IRREGULAR)
    found = seen(copied(source, tmp_path))
    assert found.times == pytest.approx(IRREGULAR, abs=1e-4) and found.seconds >= 1.0
    found = seen(copied(source, tmp_path, 3))
    assert found.times == pytest.approx(IRREGULAR[::3], abs=1e-4)


@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "aac"), (".ts", "aac"), (".mkv", "pcm_s16le")])
def test_audio_is_copied_whole(tmp_path: Path, suffix: str, codec: str) -> None:
    source = write_video(tmp_path / f"v{suffix}", regular(20, Fraction(25)), audio=codec)
    before, after = seen(source), seen(copied(source, tmp_path))
    assert after.audio == codec and len(after.sound) >= 0.8 * AUDIO_RATE
    early = 1024 if suffix == ".ts" else 0  # samples before the first image, of which a player leaves MP4's out
    assert len(after.sound) == len(before.sound) - early and (after.sound == before.sound[early:]).all()


def test_audio_of_frames_that_a_run_did_not_come_to_is_left_out(tmp_path: Path) -> None:
    source = write_video(tmp_path / "v.mp4", regular(50, Fraction(25)), audio="pcm_s16le")
    found = seen(copied(source, tmp_path, most=25))
    assert found.seconds == 1.0
    assert len(found.sound) / AUDIO_RATE == pytest.approx(1.0, abs=2 * 1024 / AUDIO_RATE)


def test_audio_that_goes_on_after_the_last_image_stays(tmp_path: Path) -> None:
    source = write_outlasted(tmp_path / "v.mkv", 25, audio_seconds=2.0)
    frames = list(read_video(source, 1, lambda text: None))
    assert frames[0].video is not None and frames[0].video.frames > len(frames) == 25
    for most, seconds in ((25, 2.0), (20, 0.8)):
        output = VideoOutput(tmp_path / "copy.mp4", frames[0], 1)
        for frame in frames[:most]:
            output.write(frame.image, frame)
        output.close()
        heard = len(seen(tmp_path / "copy.mp4").sound) / AUDIO_RATE
        assert heard == pytest.approx(seconds, abs=2 * 1024 / AUDIO_RATE)


def test_what_follows_a_change_of_size_begins_with_its_own_audio(tmp_path: Path) -> None:
    source = write_video(tmp_path / "v.mp4", regular(50, Fraction(25)), audio="pcm_s16le")
    later = list(read_video(source, 1, pytest.fail))[25:]
    output = VideoOutput(tmp_path / "part2.mp4", later[0], 1)
    for frame in later:
        output.write(frame.image, frame)
    output.close()
    whole, part = seen(source), seen(tmp_path / "part2.mp4")
    assert part.times[0] == 0 and part.seconds == 1.0
    begin = len(whole.sound) - len(part.sound)  # audio is cut between packets
    assert begin / AUDIO_RATE == pytest.approx(1.0, abs=1024 / AUDIO_RATE)
    assert (part.sound == whole.sound[begin:]).all()


@pytest.mark.case("Videos", "audio that MP4 does not take", "left out, which a line says")
def test_audio_that_the_container_does_not_take_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = write_video(tmp_path / "v.mov", regular(5, Fraction(25)), audio="pcm_mulaw")
    assert seen(copied(source, tmp_path)).audio == ""
    assert caplog.messages == [f"{source}: its audio is left out: MP4 takes no pcm_mulaw"]


@pytest.mark.parametrize("size", [(47, 63), (47, 64), (48, 63)])
def test_odd_sides_get_one_more(tmp_path: Path, size: tuple[int, int]) -> None:
    source = write_video(tmp_path / "v.mkv", regular(3, Fraction(25)), size=size)
    copy = copied(source, tmp_path)
    assert seen(copy).size == (48, 64)
    image = first_image(copy).astype(int)
    assert np.abs(image[-1] - [0, 0, 255]).max() < 30 and np.abs(image[0, -1] - [255, 0, 0]).max() < 30


@pytest.mark.parametrize(("degrees", "top"), [(0, "red above"), (180, "blue above"), (90, "red left")])
def test_a_video_of_a_phone_that_was_held_otherwise_is_upright(tmp_path: Path, degrees: int, top: str) -> None:
    source = write_video(tmp_path / "v.mp4", regular(3, Fraction(25)), turned=degrees)
    image = first_image(copied(source, tmp_path)).astype(int)
    height, width = image.shape[:2]
    assert (height, width) == ((64, 48) if degrees == 90 else (48, 64))
    place = {"red above": (4, width // 2), "blue above": (height - 4, width // 2), "red left": (height // 2, 4)}[top]
    assert np.abs(image[place] - [255, 0, 0]).max() < 30


def test_colours_stay(tmp_path: Path) -> None:
    image = np.full((48, 64, 3), (200, 120, 40), np.uint8)
    frame = Frame(image, tmp_path / "v.avi", 0, VideoFacts(25.0, 1))
    output = VideoOutput(tmp_path / "v.mp4", frame, 1)
    output.write(image, frame)
    output.close()
    assert np.abs(first_image(tmp_path / "v.mp4").astype(int) - (200, 120, 40)).max() <= 4


def stream_frame(seconds: float, index: int = 0) -> Frame:
    return Frame(np.zeros((48, 64, 3), np.uint8), Path("camera"), index, VideoFacts(10.0, 0), seconds)


def of_stream(path: Path, arrivals: list[float], vid_stride: int = 1) -> Path:
    output = VideoOutput(path, stream_frame(arrivals[0]), vid_stride)
    for index, seconds in enumerate(arrivals):
        frame = stream_frame(seconds, index)
        output.write(frame.image, frame)
    output.close()
    return path


def test_an_image_of_a_stream_stands_until_the_next_has_come(tmp_path: Path) -> None:
    found = seen(of_stream(tmp_path / "v.mp4", [50.0, 50.35, 50.38, 50.9], vid_stride=3))
    assert found.times == pytest.approx([0, 0.35, 0.38, 0.9], abs=1e-4)
    assert found.seconds == pytest.approx(1.0)  # the last one for a tenth, by the rate that the stream names


def test_after_a_long_gap_the_image_stands_still_for_a_minute_at_most(tmp_path: Path) -> None:
    found = seen(of_stream(tmp_path / "v.mp4", [0.0, 3600.0, 3601.0]))
    assert found.times == pytest.approx([0, 60, 61], abs=1e-4)


def test_a_clock_that_was_put_back_harms_nothing(tmp_path: Path) -> None:
    found = seen(of_stream(tmp_path / "v.mp4", [5.0, 5.5, 5.1, 6.0]))
    assert found.times == pytest.approx([0, 0.5, 0.5, 1.0], abs=2e-4)


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """As on a disk that is full: files that grow beyond so many bytes are refused."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.case(
    "Videos", "no room on the disk for the annotated video", "exit 1: “cannot be written”; no half a file"
)
def test_a_full_disk_is_one_line_and_leaves_no_file(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    frames = [Frame(noise, tmp_path / "v.avi", number, VideoFacts(25.0, 99)) for number in range(99)]
    output = VideoOutput(tmp_path / "v.mp4", frames[0], 1)
    with no_file_above(100_000):
        with pytest.raises(UserError, match=r"v\.mp4: cannot be written: File too large") as error:
            for frame in frames:
                output.write(np.roll(noise, frame.index, axis=1), frame)
        output.close()
    assert error.value.exit_code == 1 and list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none/v\.mp4: cannot be written: No such file"):
        VideoOutput(tmp_path / "none" / "v.mp4", stream_frame(0.0), 1)
