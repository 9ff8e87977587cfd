"""Videos for tests: written as cameras and phones do, and what a player finds in one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

TICK = Fraction(1, 90_000)  # seconds, in which times of frames are written
AUDIO_RATE = 16_000  # samples per second
PIECE = 1024  # samples of an AAC packet


@dataclass(frozen=True, slots=True)
class Seen:
    """What is in a video file."""

    codec: str
    pixels: str  # how they are stored
    size: tuple[int, int]  # height, width
    rate: Fraction  # frames over seconds
    times: list[float]  # when frames are shown, seconds
    seconds: float  # that they last together
    audio: str  # codec, '' if there is none
    sound: np.ndarray  # samples between -1 and 1


def regular(count: int, rate: Fraction) -> list[float]:
    """When frames of a constant rate are shown, in seconds."""
    return [float(number / rate) for number in range(count)]


def write_video(
    path: Path,
    times: Sequence[float],
    rate: Fraction = Fraction(25),
    size: tuple[int, int] = (48, 64),
    *,
    audio: str = "",
    turned: int = 0,
) -> Path:
    """A video, red above and blue below, whose frames are shown from ``times`` on, in seconds, the last for 1 / rate.

    ``audio``: the codec of a sine of 500 Hz that lasts as long; ``turned``: degrees by which a player turns images
    against the clock. H.264, but in Matroska FFV1, which has odd sizes.
    """
    image = np.zeros((*size, 3), np.uint8)
    image[: size[0] // 2, :, 0] = image[size[0] // 2 :, :, 2] = 255
    lossless = path.suffix == ".mkv"
    with av.open(str(path), "w") as file:
        video = file.add_stream("ffv1" if lossless else "libx264", rate, {} if lossless else {"bf": "0"})
        (video.height, video.width), video.pix_fmt = size, "yuv444p" if lossless else "yuv420p"
        video.codec_context.time_base = TICK
        if turned:
            video.set_display_rotation(turned)
        if audio:
            add_sine(file, audio, times[-1] + 1 / rate)
        for seconds in times:
            frame = av.VideoFrame.from_ndarray(image, "rgb24")
            frame.pts, frame.time_base = round(seconds / TICK), TICK
            file.mux(video.encode(frame))
        for packet in video.encode(None):
            packet.duration = round(1 / rate / TICK)
            file.mux(packet)
    return path


def write_outlasted(path: Path, count: int, audio_seconds: float) -> Path:
    """A Matroska video of 25 frames per second. Its header knows a length only, which is that of its audio."""
    with av.open(str(path), "w") as file:
        video = file.add_stream("ffv1", 25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv444p"
        add_sine(file, "pcm_s16le", audio_seconds)
        for _ in range(count):
            file.mux(video.encode(av.VideoFrame(64, 48, "yuv444p")))
        file.mux(video.encode(None))
    return path


def add_sine(file: av.container.OutputContainer, codec: str, seconds: float) -> None:
    """A sound of 500 Hz at half of the loudest."""
    track = file.add_stream(codec, AUDIO_RATE, layout="mono")
    assert isinstance(track, av.AudioStream)
    samples = 0.5 * np.sin(2 * np.pi * 500 * np.arange(round(seconds * AUDIO_RATE)) / AUDIO_RATE)
    pieces = (16384 * 2 * samples).astype(np.int16)
    for start in range(0, len(pieces), PIECE):
        piece = av.AudioFrame.from_ndarray(pieces[None, start : start + PIECE], "s16", "mono")
        piece.sample_rate, piece.pts, piece.time_base = AUDIO_RATE, start, Fraction(1, AUDIO_RATE)
        file.mux(track.encode(piece))
    file.mux(track.encode(None))


def seen(path: Path) -> Seen:
    """Play a video."""
    with av.open(str(path)) as file:
        video = file.streams.video[0]
        assert video.time_base is not None and video.average_rate is not None
        size, codec, rate = (video.height, video.width), video.codec_context.name, video.average_rate
        seconds = float((video.duration or 0) * video.time_base)
        frames = list(file.decode(video))
    audio, sound = "", np.zeros(0, np.float32)
    with av.open(str(path)) as file:
        for track in file.streams.audio:
            audio = track.codec_context.name
            sound = np.concatenate([frame.to_ndarray()[0] for frame in file.decode(track)])
    times = [float(frame.time) for frame in frames if frame.time is not None]
    return Seen(codec, frames[0].format.name, size, rate, times, seconds, audio, sound)


def first_image(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB as it is stored."""
    with av.open(str(path)) as file:
        return next(file.decode(file.streams.video[0])).to_ndarray(format="rgb24")
