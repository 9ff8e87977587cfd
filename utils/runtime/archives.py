"""Zip and tar archives from strangers: checked whole before the first byte is written, then put in place."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import shutil
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from utils.runtime.console_log import with_progress
from utils.user_error import UserError

DEEPEST = 100  # folders within folders
LONGEST_HEADER = 1 << 24  # bytes; tarfile reads a header into memory, however long it says that it is
ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06")
DAMAGE = (
    OSError,
    EOFError,
    LookupError,  # a link to a member that tarfile does not find
    ValueError,  # names that are no text, numbers that are none
    OverflowError,
    RecursionError,  # tarfile reads a header that announces a header within itself
    struct.error,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    tarfile.TarError,
    NotImplementedError,  # zipfile's word for a compression that it does not know
)


@dataclass(frozen=True, slots=True)
class UnpackLimits:
    """What an honest archive stays under: ``ratio`` x its own size or ``allowance`` bytes, and ``members``."""

    ratio: int = 100
    allowance: int = 1 << 30
    members: int = 5_000_000


def unpack(archive: Path, folder: Path, *, limits: UnpackLimits | None = None) -> None:
    """Unpack a zip or tar file (plain, gzip, bzip2, xz; told by its content) into ``folder``, which may have content.

    Files of the same name are replaced. Nothing is written for an archive that has a path or a link out of the
    folder, a device, a password, damage in its structure, more content than ``limits`` or the disk allows. Data is
    unpacked beside its place and moved when all of it is there.

    Raises:
        UserError: naming the archive and the member.
    """
    try:
        with archive.open("rb") as file:
            start = file.read(4)
            file.seek(0)
            survey = _Survey(archive, folder, limits or UnpackLimits())
            if start in ZIP_STARTS:
                _unpack_zip(file, survey)
            else:
                _unpack_tar(file, survey)
    except DAMAGE as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{archive}: cannot be unpacked into {folder}: {reason}") from error


class _Survey:
    """The members of an archive, looked at before anything is written."""

    def __init__(self, archive: Path, folder: Path, limits: UnpackLimits) -> None:
        self.archive = archive
        self.folder = folder
        self.most = max(limits.ratio * archive.stat().st_size, limits.allowance)
        self.most_members = limits.members
        self.total = 0  # bytes
        self.members = 0

    def refusal(self, reason: str) -> UserError:
        return UserError(f"{self.archive}: {reason}; nothing was unpacked")

    def admit(self, name: str, size: int) -> None:
        """Count a member; UserError for a name that leaves the folder and for too much of anything."""
        self.members += 1
        self.total += size
        if self.total > self.most or self.members > self.most_members:
            raise self.refusal(
                f"unpacks to more than {self.most} bytes or {self.most_members} files, too much for its size"
            )
        if name.startswith("/") or re.match("[A-Za-z]:/", name):
            raise self.refusal(f"the member {name!r} has an absolute path")
        if ".." in name.split("/"):
            raise self.refusal(f"the member {name!r} leads out of the folder")
        if "\\" in name or "\0" in name:
            raise self.refusal(f"the member {name!r} has a character in its name that no path should have")
        if len(_parts(name)) > DEEPEST:
            raise self.refusal(f"a member lies more than {DEEPEST} folders deep")

    def check_disk(self) -> None:
        place = next(path for path in (self.folder, *self.folder.absolute().parents) if path.is_dir())
        free = shutil.disk_usage(place).free
        if self.total > free:
            raise self.refusal(f"unpacks to {self.total} bytes; {free} are free in {place}")


def _parts(name: str) -> tuple[str, ...]:
    return tuple(part for part in name.split("/") if part not in ("", "."))


def _unpack_zip(file: IO[bytes], survey: _Survey) -> None:
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            survey.admit(member.filename, member.file_size)
            kind = stat.S_IFMT(member.external_attr >> 16)  # the upper half is the Unix mode, 0 from other systems
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise survey.refusal(f"the member {member.filename!r} is a link or a device")
            if member.flag_bits & 0x1:
                raise survey.refusal(f"the member {member.filename!r} needs a password")
        members = archive.infolist()
        _place(survey, lambda folder: archive.extractall(folder, cast(Any, _progress(members, survey))))


class _BoundedReads:
    """A file for tarfile that refuses to read the gigabytes of a false header into memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.tell = file.tell
        self.seek = file.seek

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self.file.read(size)


def _unpack_tar(file: IO[bytes], survey: _Survey) -> None:
    with _decompressed(file) as stream, tarfile.TarFile(fileobj=cast(Any, _BoundedReads(stream))) as archive:
        for member in archive:
            survey.admit(member.name, member.size)
            if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
                raise survey.refusal(f"the member {member.name!r} is a device or of an unknown kind")
        _check_end(archive, stream, survey.most)
        members = archive.getmembers()
        _check_links(members, survey)
        _place(survey, lambda folder: archive.extractall(folder, cast(Any, _progress(members, survey)), filter="data"))


def _decompressed(file: IO[bytes]) -> IO[bytes]:
    start = file.read(6)
    file.seek(0)
    if start.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.open(file))
    if start.startswith(b"BZh"):
        return cast(IO[bytes], bz2.open(file))
    if start == b"\xfd7zXZ\0":
        return cast(IO[bytes], lzma.open(file))
    return file


def _check_end(archive: tarfile.TarFile, stream: IO[bytes], most: int) -> None:
    """tarfile takes a damaged header, and a missing end, for the end: half an archive would pass as a whole one."""
    stream.seek(archive.offset)
    block = stream.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE or block.strip(b"\0"):
        raise tarfile.ReadError(f"cut or damaged at byte {archive.offset}")
    while stream.read(1 << 20):  # to the end, where the checksum of the compression lies
        if stream.tell() - archive.offset > most:
            raise tarfile.ReadError("too much behind its end")


def _check_links(members: list[tarfile.TarInfo], survey: _Survey) -> None:
    """UserError for a link that leaves the folder, by itself or through other links.

    A symbolic link may go up only at its start, ``../../a/b``: as no member lies behind a link, these steps are what
    they seem. A hard link has to be another name of a file that comes before it in the archive.
    """
    links = [member for member in members if member.issym() or member.islnk()]
    if not links:
        return
    files: set[tuple[str, ...]] = set()  # up to the member looked at
    for member in members:
        if member.isreg():
            files.add(_parts(member.name))
        elif not member.isdir() and not _stays_inside(member, files):
            where = "out of the folder or to no file in it"
            raise survey.refusal(f"the member {member.name!r} is a link to {member.linkname!r}, {where}")
    symbolic = [_parts(member.name) for member in links if member.issym()]
    behind = set(symbolic)
    if len(behind) < len(symbolic):
        raise survey.refusal("two links have the same name")
    for member in members:
        parts = _parts(member.name)
        last = len(parts) - 1 if member.issym() else len(parts)  # a link is not behind itself
        if any(parts[:depth] in behind for depth in range(1, last + 1)):
            raise survey.refusal(f"the member {member.name!r} lies behind a link")


def _stays_inside(link: tarfile.TarInfo, files: set[tuple[str, ...]]) -> bool:
    name = link.linkname
    steps = _parts(name)
    if name.startswith("/") or "\\" in name or "\0" in name:
        return False
    if link.islnk():
        return steps in files
    up = steps.count("..")
    return ".." not in steps[up:] and up <= len(_parts(link.name)) - 1


def _progress(members: list[Any], survey: _Survey) -> Iterable[Any]:
    return with_progress(members, len(members), "file", f"unpacking {survey.archive.name}")


def _place(survey: _Survey, extract: Callable[[Path], None]) -> None:
    """Extract beside the place, look whether everything fits in, then move."""
    survey.check_disk()
    folder = survey.folder
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unpacking-") as name:
        temporary = Path(name)
        extract(temporary)
        for source, target in list(_moves(temporary, folder, survey)):
            source.replace(target)


def _moves(source: Path, target: Path, survey: _Survey) -> Iterator[tuple[Path, Path]]:
    """What to rename to what, so that the tree ``source`` becomes part of the tree ``target``."""
    for entry in sorted(source.iterdir()):
        place = target / entry.name
        folder = entry.is_dir() and not entry.is_symlink()
        if folder and place.is_dir():
            if not place.resolve().is_relative_to(survey.folder.resolve()):
                raise survey.refusal(f"{place} is a link out of {survey.folder}")
            yield from _moves(entry, place, survey)
        elif (folder and (place.exists() or place.is_symlink())) or (place.is_dir() and not place.is_symlink()):
            raise survey.refusal(f"{place} is there already, a folder in one and a file in the other")
        else:
            yield entry, place
