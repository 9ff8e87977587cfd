"""Images and videos on the disk: a file, a folder, a glob, a text list, a list on standard input.

``find_files`` finds the files before any work starts; a list on standard input is read as it comes. A file that cannot
be read is named in one line and skipped; a damaged frame of a video costs that frame only.
"""

from __future__ import annotations

import itertools
import logging
import os
import select
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from utils.dataset.image_files import IMAGE_SUFFIXES, ImageReadError, folders_below, read_image
from utils.inference.frames import Frame, VideoFacts
from utils.runtime.console_log import counted
from utils.runtime.threads import POLL, read_ahead, useful_workers
from utils.user_error import UserError

LOGGER = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset(
    {".asf", ".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"}
)
MOST_LOST = 30  # frames in a row that cannot be read, after which the rest of the file is given up
CUT_SHORT = Fraction(1, 10)  # seconds, by which a file has to end early: lengths of packets are rounded
READERS = 2, 4  # threads that decode images, at least and at most


class FileSource:
    """Images and videos; going through it reads them, images a few files ahead."""

    live = False

    def __init__(self, files: tuple[Path, ...], vid_stride: int = 1, clean_up: Callable[[], None] | None = None):
        self.files = files
        self.vid_stride = vid_stride
        self.skipped: list[str] = []
        self._clean_up = clean_up

    def __iter__(self) -> Iterator[Frame]:
        readers = max(READERS[0], useful_workers(READERS[1]))
        for path, content in zip(self.files, read_ahead(_content, self.files, threads=readers), strict=True):
            yield from self._frames(path, content)

    def groups(self, size: int, stopped: Callable[[], bool]) -> Iterator[list[Frame]]:
        """See ``FrameSource``."""
        frames = iter(self)
        while group := list(itertools.islice(frames, size)):
            yield group

    @property
    def known(self) -> Mapping[Path, bool]:
        """See ``FrameSource``."""
        return {path: is_video(path) for path in self.files}

    def expected_frames(self) -> int | None:
        """See ``FrameSource``."""
        videos = [path for path in self.files if is_video(path)]
        of_videos = sum(-(-video_length(path) // self.vid_stride) for path in videos)
        return len(self.files) - len(videos) + of_videos

    def close(self) -> None:
        """See ``FrameSource``."""
        if self._clean_up:
            self._clean_up()

    def _frames(self, path: Path, content: np.ndarray | ImageReadError | None) -> Iterator[Frame]:
        if content is None:
            yield from read_video(path, self.vid_stride, self._skip)
        elif isinstance(content, ImageReadError):
            self._skip(str(content))
        else:
            yield Frame(content, path, 0, None)

    def _skip(self, line: str) -> None:
        LOGGER.warning("%s (skipped)", line)
        self.skipped.append(line)


class ListedAsTheyCome(FileSource):
    """Files named line by line by something that may still be at work, such as a pipe; none is waited for."""

    def __init__(self, descriptor: int, vid_stride: int = 1, *, recursive: bool = False) -> None:
        super().__init__((), vid_stride)
        self._descriptor = descriptor
        self._recursive = recursive

    def groups(self, size: int, stopped: Callable[[], bool]) -> Iterator[list[Frame]]:
        """One frame at a time, as the next line may be long in coming."""
        for line in _lines(self._descriptor, stopped):
            try:
                files = find_files(line, lists_allowed=False, recursive=self._recursive)
            except UserError as error:
                self._skip(str(error))
                continue
            for path in files:
                for frame in self._frames(path, _content(path)):
                    yield [frame]

    def expected_frames(self) -> int | None:
        """Nobody knows."""
        return None


def _lines(descriptor: int, stopped: Callable[[], bool]) -> Iterator[str]:
    """Lines that are not blank, until the end of the file or ``stopped``, which is asked while none comes."""
    rest = b""
    while not stopped():
        if not select.select([descriptor], [], [], POLL)[0]:
            continue
        read = os.read(descriptor, 1 << 16)
        *lines, rest = (rest + read + (b"" if read else b"\n")).split(b"\n")
        for line in lines:
            if line.strip():
                yield os.fsdecode(line.strip())
        if not read:
            return


def find_files(
    source: str, *, recursive: bool = False, lists_allowed: bool = True, near: Path | None = None
) -> list[Path]:
    """The images and videos that ``source`` names, in sorted order (a text list keeps its own).

    Args:
        source: an image or video file, a folder, a glob (``**`` reaches into subfolders), or a ``.txt`` file that
            lists any of these, one per line, seen from the working folder or from the list's.
        recursive: of a folder take its subfolders too; what is left out otherwise is said in the log.
        lists_allowed: a ``.txt`` file is a list; lists do not name lists.
        near: where a relative path is sought too.

    Raises:
        UserError: nothing there, or something that is neither an image nor a video by its name.
    """
    path = Path(source)
    if near is not None and not path.is_absolute() and not path.exists():
        path = near / path
    if path.is_dir():
        return _files_in(path, recursive=recursive)
    if path.is_file():
        if path.suffix.lower() == ".txt" and lists_allowed:
            return _listed_files(path, recursive=recursive)
        if not _known(path):
            raise UserError(f"{source}: neither an image nor a video by its name")
        return [path]
    if _is_pattern(source):
        return sorted(entry for entry in _matches(path) if entry.is_file() and _known(entry))
    raise UserError(f"{source}: no such file or folder")


def _files_in(folder: Path, *, recursive: bool) -> list[Path]:
    """The images and videos in a folder, and in those below it."""
    files = [Path(place, name) for place, names in folders_below(folder) for name in names]
    known = sorted(file for file in files if _known(file) and file.is_file())
    own = known if recursive else [file for file in known if file.parent == folder]
    if len(own) < len(known):
        some = counted(len(known) - len(own), "file" if any(map(is_video, known)) else "image")
        if not own:
            raise UserError(
                f"{folder}: no images or videos there, but {some} in its subfolders; --recursive reads them"
            )
        LOGGER.warning("%s: %s in its subfolders left out; --recursive reads them too", folder, some)
    return own


def _content(path: Path) -> np.ndarray | ImageReadError | None:
    """Pixels of an image, or why there are none; None for a video."""
    if is_video(path):
        return None
    try:
        return read_image(path)
    except ImageReadError as error:
        return error


def _matches(pattern: Path) -> Iterator[Path]:
    fixed = list(itertools.takewhile(lambda part: not _is_pattern(part), pattern.parts))
    return Path(*fixed).glob(str(Path(*pattern.parts[len(fixed) :])))


def _is_pattern(text: str) -> bool:
    return any(character in text for character in "*?[")


def _listed_files(path: Path, *, recursive: bool) -> list[Path]:
    files: list[Path] = []
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            files += find_files(line.strip(), recursive=recursive, lists_allowed=False, near=path.parent)
        except UserError as error:
            raise UserError(f"{path}, line {number}: {error}") from None
    return files


def _known(path: Path) -> bool:
    return is_video(path) or path.suffix.lower() in IMAGE_SUFFIXES


def is_video(path: Path) -> bool:
    """Whether the name of the file is that of a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def video_length(path: Path) -> int:
    """Number of frames by the header, 0 if it does not say or is not readable."""
    capture = _capture(path)
    facts = VideoFacts.of(capture)
    capture.release()
    return facts.frames


def _capture(path: Path) -> cv2.VideoCapture:
    """The video; not opened if it cannot be, as by a name that is no text, on which OpenCV ends the process."""
    return cv2.VideoCapture(str(path)) if _is_text(path) else cv2.VideoCapture()


def _is_text(path: Path) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in str(path))


def read_video(path: Path, vid_stride: int, skip: Callable[[str], None]) -> Iterator[Frame]:
    """Every ``vid_stride``-th frame of the video; ``skip`` gets one line for each that cannot be read."""
    capture = _capture(path)
    try:
        if not capture.isOpened():
            skip(f"{path}: not a readable video{'' if _is_text(path) else ', as its name is not UTF-8'}")
            return
        facts = VideoFacts.of(capture)
        given, index = 0, -1
        at = -1.0  # seconds when the last good frame is shown; 0 where the file does not say
        lost: list[int] = []  # frames since the last good one
        while len(lost) <= MOST_LOST and (not lost or index + 1 < facts.frames):
            index += 1
            readable, image = capture.grab(), None
            if readable and index % vid_stride == 0:
                readable, image = capture.retrieve()
            if not readable:
                lost.append(index)
                continue
            before, at = at, capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            for number in lost:
                skip(f"{path}: frame {number} is not readable")
            lost.clear()
            if image is not None:
                given += 1
                shown_at = at if at > before else None
                yield Frame(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), path, index, facts, shown_at=shown_at)
        if not given:
            skip(f"{path}: the video has no readable frame")
        elif len(lost) > MOST_LOST and not _ends_after(path, lost[0]):
            skip(f"{path}: no readable frame after number {lost[0] - 1} of {facts.frames}")
    finally:
        capture.release()


def _ends_after(path: Path, frames: int) -> bool:
    """Whether a whole file has only so many frames: some headers tell of a length alone, which may be the audio's."""
    try:
        import av  # most videos need no second reader
    except ModuleNotFoundError:
        return False
    images, end = 0, Fraction(0)
    try:
        with av.open(str(path.absolute())) as file:
            length = Fraction(file.duration or 0, av.time_base)
            for packet in file.demux():
                images += packet.stream.type == "video" and packet.size > 0
                if packet.pts is not None:
                    end = max(end, (packet.pts + (packet.duration or 0)) * packet.time_base)
    except (av.FFmpegError, OSError):
        return False
    return images <= frames and end > length - CUT_SHORT
