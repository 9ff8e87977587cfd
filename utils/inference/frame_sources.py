"""Where images to detect on come from: what kind of source a ``--source`` is."""

from __future__ import annotations

import re
import sys
import tempfile
import urllib.parse
from pathlib import Path, PurePosixPath

from utils.dataset.image_files import IMAGE_SUFFIXES
from utils.inference.file_source import VIDEO_SUFFIXES, FileSource, ListedAsTheyCome, find_files
from utils.inference.frames import FrameSource
from utils.inference.live_sources import LiveSource, ScreenSource, is_stream_address, listed_streams
from utils.runtime.downloads import fetch
from utils.user_error import UserError


def open_source(source: str, vid_stride: int = 1, *, recursive: bool = False) -> FrameSource:
    """The images, videos or streams that ``source`` names; to be closed after use.

    Args:
        source: what ``find_files`` takes; ``-`` for lines of that on standard input; the address of an image or
            video file, which is fetched; the address of a stream, the number of a camera, a ``.streams`` file that
            lists those; ``screen [number] [left top width height]``.
        vid_stride: of a video or stream, take every n-th frame.
        recursive: of a folder take its subfolders too.

    Raises:
        UserError: nothing there, no image or video among it, or not to be fetched.
    """
    if source == "-":
        return ListedAsTheyCome(sys.stdin.fileno(), vid_stride, recursive=recursive)
    if re.match(r"screen(\s|$)", source) and not Path(source).exists():
        return ScreenSource(source)
    path = Path(source)
    if path.suffix.lower() == ".streams":
        if not path.is_file():
            raise UserError(f"{source}: no such file or folder")
        return LiveSource(listed_streams(path), vid_stride)
    if is_stream_address(source):
        name = _name_of_file_at(source)
        return _fetched(source, name, vid_stride) if name else LiveSource([source], vid_stride)
    if "://" in source:
        raise UserError(f"{source}: not an address that can be read; http https rtsp rtmp tcp and udp can")
    files = tuple(find_files(source, recursive=recursive))
    if not files:
        raise UserError(f"{source}: no images or videos there")
    return FileSource(files, vid_stride)


def _name_of_file_at(address: str) -> str:
    """The name of the image or video file at an address, '' if it is a stream by its name."""
    parts = urllib.parse.urlsplit(address)
    host = parts.hostname or ""
    if host.removeprefix("www.").removeprefix("m.") in ("youtube.com", "youtu.be"):
        raise UserError(f"{address}: a page, not a stream; `yt-dlp -g ADDRESS` prints the address of the stream itself")
    name = PurePosixPath(urllib.parse.unquote(parts.path)).name
    is_file = PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES
    return name if is_file and parts.scheme.lower() in ("http", "https") else ""


def _fetched(address: str, name: str, vid_stride: int) -> FileSource:
    """The file at an address, kept until the source is closed."""
    folder = tempfile.TemporaryDirectory(prefix="detect-")
    return FileSource((fetch(address, Path(folder.name) / name),), vid_stride, folder.cleanup)
