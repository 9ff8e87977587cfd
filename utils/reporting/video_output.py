"""Annotated video: H.264 in MP4, which browsers play, in the time of its source and with its audio.

An image is shown from its frame's own time in the source on. So a video lasts as long as its source whatever the
stride, keeps an irregular rate, and is in step with the audio, whose packets are copied as they are.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.video.reformatter import ColorRange, Colorspace

from utils.inference.frames import Frame, VideoFacts
from utils.user_error import UserError

LOGGER = logging.getLogger(__name__)

USUAL_FRAME_RATE = 30.0  # frames per second, for a video or stream that does not say
LARGEST_DENOMINATOR = 1_000_000  # of a rate that OpenCV tells as a float: 29.97... is 30000/1001
LONGEST_GAP = 60  # seconds for which the last image of a stream stands still
LEAST_TICKS = 10_000  # that a second has at least: times are written as a number of them
BT709 = 1  # colours and their matrix, as ITU-T H.273 numbers them
# Without frames that refer to later ones: of these MP4 has the durations in the order of decoding, and those of a video
# whose rate is irregular add up to less than it lasts.
ENCODER = {"preset": "veryfast", "crf": "23", "bf": "0"}


class VideoOutput:
    """One ``.mp4`` of frames of one size; it has its name once it is closed, and is whole then or not there."""

    def __init__(self, path: Path, frame: Frame, vid_stride: int) -> None:
        """For frames like ``frame``, which is the first. UserError: it cannot be written."""
        assert frame.video is not None
        self._size = frame.image.shape[:2]
        self._shown = frame.path
        self._path, self._unfinished = path, path.with_name(f"{path.name}.part")
        source = _opened(frame.path) if frame.seconds is None else None
        self._times = FrameTimes.of(frame.video, source)
        rate = self._times.rate
        self._stride = vid_stride if frame.seconds is None else 1
        self._tick = Fraction(1, rate.numerator * math.ceil(LEAST_TICKS / rate.numerator))
        self._start = self._last = self._times.of_frame(frame)  # seconds of the source's clock
        self._last_tick = -1
        self._last_index = -1
        self._more_to_come = False  # frames of the source after the last one, by its header
        self._failed = False
        self._file = av.open(str(self._unfinished.absolute()), "w", "mp4", {"movflags": "faststart"})
        self._video = self._file.add_stream("h264", rate, ENCODER)
        # In 4:2:0 sides are even: an odd image gets its last row or column twice.
        self._video.height, self._video.width = (side + side % 2 for side in self._size)
        self._video.pix_fmt = "yuv420p"
        context = self._video.codec_context
        context.time_base = self._tick
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = ColorRange.MPEG
        self._audio = CopiedAudio(source, self._file, self._start, frame.path)
        with self._whole_or_gone():
            self._file.start_encoding()

    def goes_on_with(self, frame: Frame) -> bool:
        """Whether a frame of the same source belongs into this file: a list may name a video twice."""
        return self._size == frame.image.shape[:2] and frame.index > self._last_index

    def write(self, image: np.ndarray, frame: Frame) -> None:
        """Append an image (H, W, 3) uint8 RGB, drawn on ``frame``. UserError: it cannot be written."""
        assert frame.video is not None
        seconds = self._times.of_frame(frame)
        if frame.seconds is not None:
            self._start += max(seconds - self._last - LONGEST_GAP, Fraction(0))
        self._last, self._last_index, self._more_to_come = (
            seconds,
            frame.index,
            frame.index + self._stride < frame.video.frames,
        )
        self._last_tick = max(round((seconds - self._start) / self._tick), self._last_tick + 1)
        bottom, right = (side % 2 for side in self._size)
        even = np.pad(image, ((0, bottom), (0, right), (0, 0)), "edge") if bottom or right else image
        shown = av.VideoFrame.from_ndarray(even, "rgb24").reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )
        shown.pts, shown.time_base = self._last_tick, self._tick
        with self._whole_or_gone():
            self._audio.copy(seconds - self._start)
            self._append(self._video.encode(shown))

    def close(self) -> None:
        """Finish the file. UserError: it cannot be written."""
        if self._failed:
            return
        with self._whole_or_gone():
            self._append(self._video.encode(None))
            # What is heard after the last image stays, unless a run ended before its video did.
            end = self._last - self._start + self._stride / self._times.rate
            next_image = self._last + (self._stride - Fraction(1, 2)) / self._times.rate  # or a little later
            ends_early = self._more_to_come and _goes_on_after(self._shown, next_image)
            self._audio.copy(end if ends_early else None)
            self._file.close()
            self._unfinished.replace(self._path)
        self._audio.close()

    def _append(self, packets: Iterable[Packet]) -> None:
        length = self._stride / self._times.rate
        for packet in packets:
            packet.duration = round(length / self._tick)  # counts for the last image: the others end at the next
            self._file.mux(packet)

    @contextlib.contextmanager
    def _whole_or_gone(self) -> Iterator[None]:
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            self._failed = True
            self._audio.close()
            with contextlib.suppress(av.FFmpegError):
                self._file.close()
            with contextlib.suppress(OSError):
                self._unfinished.unlink()
            raise UserError(f"{self._path}: cannot be written: {error.strerror or error}") from error


@dataclass(frozen=True, slots=True)
class FrameTimes:
    """When the frames of a source are shown."""

    rate: Fraction  # frames per second, of an irregular source about so many
    rounding: Fraction  # seconds by which times of a regular source may be off: Matroska has milliseconds

    @classmethod
    def of(cls, facts: VideoFacts, source: InputContainer | None) -> FrameTimes:
        video = source.streams.video[0] if source and source.streams.video else None
        told = Fraction(facts.frames_per_second or USUAL_FRAME_RATE).limit_denominator(LARGEST_DENOMINATOR)
        rate = (video and (video.guessed_rate or video.average_rate)) or told
        rounding = (video and video.time_base) or Fraction(0)
        return cls(rate, min(rounding, 1 / (4 * rate)))

    def of_frame(self, frame: Frame) -> Fraction:
        """Seconds of the source's clock: by the frame's number, unless its own time is another beyond rounding."""
        if frame.seconds is not None:
            return Fraction(frame.seconds)
        regular = frame.index / self.rate
        if frame.shown_at is None or abs(frame.shown_at - regular) <= self.rounding:
            return regular
        return Fraction(frame.shown_at)


class CopiedAudio:
    """The audio tracks of a video file, written packet by packet into another; a stream has none."""

    def __init__(self, source: InputContainer | None, output: OutputContainer, start: Fraction, path: Path) -> None:
        """``start``: what is 0 in the output, in seconds from the first frame of the source, which is at ``path``."""
        self._source, self._output, self._path = source, output, path
        self._tracks: dict[int, AudioStream] = {}
        self._packets: Iterator[Packet] = iter(())
        for track in source.streams.audio if source else ():
            if track.name in output.supported_codecs:
                self._tracks[track.index] = output.add_stream_from_template(track)
            else:
                LOGGER.warning("%s: its audio is left out: MP4 takes no %s", path, track.name or "such codec")
        if source and self._tracks:
            self._packets = source.demux([source.streams[index] for index in self._tracks])
        self._begin = start + (_first_time(source) if source else 0)  # seconds in the source's container
        self._waiting = self._next()

    def copy(self, until: Fraction | None) -> None:
        """Write what begins before ``until``, seconds in the output; None: all that is left."""
        while self._waiting and (until is None or self._waiting[0] < until):
            self._output.mux(self._waiting[1])
            self._waiting = self._next()

    def close(self) -> None:
        """Let go of the source."""
        self._waiting = None
        if self._source is not None:
            self._source.close()

    def _next(self) -> tuple[Fraction, Packet] | None:
        """The next packet that does not end before the output begins, in the output's time, and its seconds there."""
        try:
            for packet in self._packets:
                if packet.dts is None or packet.pts is None:  # the last ones, without content
                    continue
                shift = round(self._begin / packet.time_base)
                if packet.pts + (packet.duration or 0) < shift:
                    continue
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = self._tracks[packet.stream.index]
                return packet.pts * packet.time_base, packet
        except av.FFmpegError as error:
            LOGGER.warning("%s: its audio cannot be read further: %s", self._path, error.strerror)
        return None


def _opened(path: Path) -> InputContainer | None:
    """The file; None if OpenCV alone can read it."""
    try:
        return av.open(str(path.absolute()))
    except (av.FFmpegError, OSError):
        return None


def _goes_on_after(path: Path, seconds: Fraction) -> bool:
    """Whether a video shows an image later than so many seconds: by some headers it is as long as its audio."""
    source = _opened(path)
    if source is None or not source.streams.video:
        return True
    video, first = source.streams.video[0], _first_time(source)
    with source, contextlib.suppress(av.FFmpegError):
        source.seek(round((first + seconds) / (video.time_base or 1)), stream=video)
        times = (packet.pts * packet.time_base for packet in source.demux(video) if packet.pts is not None)
        return any(time - first > seconds for time in times)
    return True


def _first_time(source: InputContainer) -> Fraction:
    """When the first frame is shown, in seconds of the container's clock: cameras may begin with audio."""
    video = source.streams.video[0] if source.streams.video else None
    return Fraction(0) if video is None else (video.start_time or 0) * (video.time_base or Fraction(0))
