"""Where pictures to detect on come from: a picture, a folder, a glob, a text list, a video file.

``open_source`` finds the files before any work starts; going through the source reads them one by one. A file that
cannot be read is named in one line and skipped.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from utils.dataset.image_files import IMAGE_SUFFIXES, ImageReadError, read_image
from utils.user_error import UserError

LOGGER = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset(
    {".asf", ".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"}
)


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """What a video's header says."""

    frames_per_second: float
    frames: int  # by the header, 0 if it does not say


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of a source."""

    image: np.ndarray  # (H, W, 3) uint8 RGB
    path: Path
    index: int  # 0 for a picture; the frame's number in its video
    video: VideoFacts | None  # None for a picture


@dataclass(slots=True)
class FrameSource:
    """The pictures and videos behind one ``--source``; iterating reads them."""

    files: tuple[Path, ...]
    vid_stride: int = 1
    skipped: list[str] = field(default_factory=list)  # one line for each unreadable file, as they are met

    def __iter__(self) -> Iterator[Frame]:
        for path in self.files:
            if is_video(path):
                yield from self._video_frames(path)
            else:
                yield from self._picture(path)

    def expected_frames(self) -> int:
        """How many frames there will be, as far as the videos' headers tell the truth."""
        videos = [path for path in self.files if is_video(path)]
        of_videos = sum(-(-_video_length(path) // self.vid_stride) for path in videos)
        return len(self.files) - len(videos) + of_videos

    def _picture(self, path: Path) -> Iterator[Frame]:
        try:
            image = read_image(path)
        except ImageReadError as error:
            self._skip(str(error))
            return
        yield Frame(image, path, 0, None)

    def _video_frames(self, path: Path) -> Iterator[Frame]:
        capture = cv2.VideoCapture(str(path))
        try:
            if not capture.isOpened():
                self._skip(f"{path}: not a readable video")
                return
            facts = VideoFacts(capture.get(cv2.CAP_PROP_FPS), max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0))
            given = 0
            index = -1
            while capture.grab():
                index += 1
                if index % self.vid_stride:
                    continue
                readable, image = capture.retrieve()
                if not readable or image is None:
                    self._skip(f"{path}: frame {index} is not readable")
                    continue
                given += 1
                yield Frame(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), path, index, facts)
            if not given:
                self._skip(f"{path}: the video has no readable frame")
        finally:
            capture.release()

    def _skip(self, line: str) -> None:
        LOGGER.warning("%s (skipped)", line)
        self.skipped.append(line)


def open_source(source: str, vid_stride: int = 1) -> FrameSource:
    """The pictures and videos that ``source`` names, in sorted order (a text list keeps its own).

    Args:
        source: a picture or video file, a folder (not its subfolders), a glob (``**`` reaches into subfolders), or a
            ``.txt`` file that lists any of these, one per line, seen from the working folder or from the list's.
        vid_stride: of a video, take every n-th frame.

    Raises:
        UserError: nothing there, no picture or video among it, or a live source.
    """
    files = tuple(_files(source, lists_allowed=True))
    if not files:
        raise UserError(f"{source}: no pictures or videos there")
    return FrameSource(files, vid_stride)


def is_video(path: Path) -> bool:
    """Whether the name of the file is that of a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def _files(source: str, *, lists_allowed: bool, near: Path | None = None) -> list[Path]:
    path = Path(source)
    if near is not None and not path.is_absolute() and not path.exists():
        path = near / path
    if path.is_dir():
        return sorted(entry for entry in path.iterdir() if entry.is_file() and _known(entry))
    if path.is_file():
        if path.suffix.lower() == ".txt" and lists_allowed:
            return _listed_files(path)
        if not _known(path):
            raise UserError(f"{source}: neither a picture nor a video by its name")
        return [path]
    if _is_pattern(source):
        return sorted(entry for entry in _matches(path) if entry.is_file() and _known(entry))
    if _is_live(source):
        raise UserError(f"{source}: webcams, streams and screens cannot be read; give pictures or a video file")
    raise UserError(f"{source}: no such file or folder")


def _matches(pattern: Path) -> Iterator[Path]:
    fixed = list(itertools.takewhile(lambda part: not _is_pattern(part), pattern.parts))
    return Path(*fixed).glob(str(Path(*pattern.parts[len(fixed) :])))


def _is_pattern(text: str) -> bool:
    return any(character in text for character in "*?[")


def _listed_files(path: Path) -> list[Path]:
    files: list[Path] = []
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            files += _files(line.strip(), lists_allowed=False, near=path.parent)
        except UserError as error:
            raise UserError(f"{path}, line {number}: {error}") from None
    return files


def _known(path: Path) -> bool:
    return is_video(path) or path.suffix.lower() in IMAGE_SUFFIXES


def _is_live(source: str) -> bool:
    return source.isdigit() or "://" in source or source.startswith("screen") or source.endswith(".streams")


def _video_length(path: Path) -> int:
    capture = cv2.VideoCapture(str(path))
    length = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    capture.release()
    return max(length, 0)
