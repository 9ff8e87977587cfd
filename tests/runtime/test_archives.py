"""Archives: honest ones unpack, hostile and damaged ones are refused before anything is written."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.runtime.archives import UnpackLimits, unpack
from utils.user_error import UserError

TREE = {"coco/images/ä b.jpg": b"image", "coco/labels/a.txt": b"0 0.5 0.5 1 1\n" * 99, "coco/empty.txt": b""}


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


def make_tar(path: Path, members: Iterable[tarfile.TarInfo | tuple[str, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for entry in members:
            if isinstance(entry, tarfile.TarInfo):
                archive.addfile(entry)
            else:
                archive.addfile(member(entry[0], size=len(entry[1])), io.BytesIO(entry[1]))
    return path


def make_zip(path: Path, files: Iterable[tuple[str, bytes]], mode: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return path


def make(kind: str, path: Path, files: Iterable[tuple[str, bytes]]) -> Path:
    """An archive of ``kind``; the file's own name says nothing about it."""
    return make_zip(path, files) if kind == "zip" else make_tar(path, files, f"w:{kind}")


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def refused(archive: Path, *, limits: UnpackLimits | None = None) -> str:
    """The message that unpacking ends with; it is one line, and nothing was written anywhere beside the archive."""
    folder = archive.parent / "into"
    with pytest.raises(UserError) as caught:
        unpack(archive, folder, limits=limits)
    assert "\n" not in str(caught.value)
    assert str(archive) in str(caught.value)
    assert list(archive.parent.iterdir()) == [archive]
    return str(caught.value)


@pytest.mark.parametrize("kind", ["zip", "", "gz", "bz2", "xz"])
def test_every_kind_unpacks(tmp_path: Path, kind: str) -> None:
    unpack(make(kind, tmp_path / "archive", TREE.items()), tmp_path / "new" / "into")
    assert contents(tmp_path / "new" / "into") == TREE
    assert [path.name for path in (tmp_path / "new" / "into").iterdir()] == ["coco"]  # the temporary folder is gone


@pytest.mark.parametrize("kind", ["zip", "gz"])
def test_a_second_archive_joins_the_first(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "into"
    unpack(make(kind, tmp_path / "1", TREE.items()), folder)
    (folder / "coco" / "mine.txt").write_text("mine")
    unpack(make(kind, tmp_path / "2", [("coco/labels/a.txt", b"newer"), ("coco/val/b.jpg", b"b")]), folder)
    newer = {"coco/labels/a.txt": b"newer", "coco/val/b.jpg": b"b", "coco/mine.txt": b"mine"}
    assert contents(folder) == TREE | newer


@pytest.mark.parametrize("kind", ["zip", "", "gz"])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../evil", "leads out of the folder"),
        ("a/../../evil", "leads out of the folder"),
        ("a/..", "leads out of the folder"),
        ("/tmp/evil", "absolute path"),
        ("//evil", "absolute path"),
        ("C:/evil", "absolute path"),
        ("..\\evil", "character in its name"),
        ("a/" * 101 + "evil", "folders deep"),
    ],
)
def test_names_that_leave_the_folder(tmp_path: Path, kind: str, name: str, reason: str) -> None:
    assert reason in refused(make(kind, tmp_path / "archive", [("good", b"1"), (name, b"2")]))


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("link", "../evil"),
        ("link", "/etc/passwd"),
        ("link", "a/../../evil"),
        ("a/link", "../../evil"),
        ("a/b/link", "c/../../d"),
        ("link", ".."),
        ("link", "a\\b"),
        (".", "a"),
    ],
)
def test_symbolic_links_out_of_the_folder(tmp_path: Path, name: str, target: str) -> None:
    message = refused(make_tar(tmp_path / "archive", [member(name, tarfile.SYMTYPE, target)]))
    assert f"{name!r} is a link to {target!r}, out of the folder" in message


@pytest.mark.parametrize("target", ["../evil", "/etc/passwd", "absent", "later", "link", "soft", "a"])
def test_hard_links_to_anything_but_a_file_of_the_archive(tmp_path: Path, target: str) -> None:
    members = [
        member("a", tarfile.DIRTYPE),
        member("soft", tarfile.SYMTYPE, "a"),
        member("link", tarfile.LNKTYPE, target),
        member("later"),
    ]
    assert "'link' is a link to" in refused(make_tar(tmp_path / "archive", members))


def test_a_way_out_over_several_links(tmp_path: Path) -> None:
    # Each name stays inside when read as text; p/q/r/.. is the folder above once p/q/r stands for the top.
    chain = [member("p/q/r", tarfile.SYMTYPE, "../.."), member("k/m/z", tarfile.SYMTYPE, "../../p/q/r/..")]
    assert "out of the folder" in refused(make_tar(tmp_path / "archive", chain))


@pytest.mark.parametrize(
    "members",
    [
        [member("d", tarfile.SYMTYPE, "e"), member("d/file")],
        [member("d/file"), member("./d", tarfile.SYMTYPE, "e")],
        [member("d", tarfile.SYMTYPE, "e"), member("d")],
        [member("d", tarfile.SYMTYPE, "e"), member("d/up", tarfile.SYMTYPE, "x")],
        [member("d", tarfile.SYMTYPE, "e"), member("d", tarfile.SYMTYPE, "f")],
    ],
)
def test_nothing_lies_behind_a_link(tmp_path: Path, members: list[tarfile.TarInfo]) -> None:
    message = refused(make_tar(tmp_path / "archive", members))
    assert "behind a link" in message or "two links have the same name" in message


def test_links_inside_the_folder_are_kept(tmp_path: Path) -> None:
    members: list[tarfile.TarInfo | tuple[str, bytes]] = [
        ("images/a.jpg", b"a"),
        member("val/a.jpg", tarfile.SYMTYPE, "../images/a.jpg"),
        member("train/a.jpg", tarfile.LNKTYPE, "images/a.jpg"),
    ]
    folder = tmp_path / "into"
    unpack(make_tar(tmp_path / "archive", members, "w:gz"), folder)
    assert contents(folder) == {"images/a.jpg": b"a", "val/a.jpg": b"a", "train/a.jpg": b"a"}
    assert (folder / "val" / "a.jpg").is_symlink()
    assert (folder / "train" / "a.jpg").samefile(folder / "images" / "a.jpg")


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"Z"])
def test_devices_and_unknown_kinds(tmp_path: Path, kind: bytes) -> None:
    message = refused(make_tar(tmp_path / "archive", [member("good"), member("dev", kind)]))
    assert "'dev' is a device or of an unknown kind" in message


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO])
def test_links_and_devices_in_a_zip(tmp_path: Path, mode: int) -> None:
    archive = make_zip(tmp_path / "archive", [("link", b"/etc/passwd")], mode | 0o777)
    assert "'link' is a link or a device" in refused(archive)


def test_no_special_bits_survive(tmp_path: Path) -> None:
    info = member("tool")
    info.mode = 0o6777
    unpack(make_tar(tmp_path / "archive", [info]), tmp_path / "into")
    assert stat.S_IMODE((tmp_path / "into" / "tool").stat().st_mode) & 0o7022 == 0


@pytest.mark.parametrize("kind", ["zip", "gz", "bz2", "xz"])
def test_a_bomb(tmp_path: Path, kind: str) -> None:
    archive = make(kind, tmp_path / "archive", [("zeros", bytes(3_000_000))])
    assert "too much for its size" in refused(archive, limits=UnpackLimits(ratio=100, allowance=1_000_000))
    unpack(archive, tmp_path / "into", limits=UnpackLimits(ratio=100, allowance=3_000_000))
    assert (tmp_path / "into" / "zeros").stat().st_size == 3_000_000


@pytest.mark.parametrize("kind", ["zip", "gz"])
def test_too_many_files(tmp_path: Path, kind: str) -> None:
    archive = make(kind, tmp_path / "archive", [(f"{i}", b"") for i in range(20)])
    assert "or 19 files" in refused(archive, limits=UnpackLimits(members=19))


def test_a_header_that_would_fill_the_memory(tmp_path: Path) -> None:
    long_name = member("././@LongLink", tarfile.GNUTYPE_LONGNAME, size=1 << 40)
    (tmp_path / "archive").write_bytes(long_name.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    assert "a header of 1099511627776 bytes" in refused(tmp_path / "archive")


def test_headers_that_announce_headers_without_end(tmp_path: Path) -> None:
    long_name = member("././@LongLink", tarfile.GNUTYPE_LONGNAME, size=5)
    (tmp_path / "archive").write_bytes((long_name.tobuf(tarfile.GNU_FORMAT) + b"name".ljust(512, b"\0")) * 5000)
    assert "recursion" in refused(tmp_path / "archive")


def test_a_member_larger_than_the_disk(tmp_path: Path) -> None:
    claim = member("huge", size=1 << 60)
    (tmp_path / "archive").write_bytes(claim.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    assert "too much for its size" in refused(tmp_path / "archive")
    make_tar(tmp_path / "archive", [("small", b"1")])
    sparse = member("sparse", size=1 << 60)
    sparse.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": str(1 << 60)}
    sparse.size = 1
    with tarfile.open(tmp_path / "archive", "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(sparse, io.BytesIO(b"1"))
    assert "are free in" in refused(tmp_path / "archive", limits=UnpackLimits(allowance=1 << 61))


@pytest.mark.parametrize("kind", ["zip", "", "gz", "bz2", "xz"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.65])
def test_a_cut_archive(tmp_path: Path, kind: str, share: float) -> None:
    whole = make(kind, tmp_path / "archive", [(f"{i}.bin", os.urandom(600)) for i in range(20)])
    whole.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * share)])
    assert "cannot be unpacked" in refused(whole)


def test_a_damaged_header_in_the_middle_is_not_the_end(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "archive", [("a", b"1"), ("b", b"2"), ("c", b"3")])
    data = bytearray(archive.read_bytes())
    data[1024 + 150] ^= 0xFF  # in the checksum of b's header
    archive.write_bytes(data)
    assert "cut or damaged at byte 1024" in refused(archive)


def test_damaged_content_of_a_zip_leaves_nothing(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "archive", "w") as archive:
        archive.writestr("a.bin", b"A" * 100)
        archive.writestr("b.bin", b"B" * 100)
    data = (tmp_path / "archive").read_bytes()
    (tmp_path / "archive").write_bytes(data.replace(b"B" * 100, b"B" * 99 + b"C"))
    with pytest.raises(UserError, match=r"Bad CRC-32 for file 'b\.bin'"):
        unpack(tmp_path / "archive", tmp_path / "into")
    assert contents(tmp_path / "into") == {}


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not an archive\n" * 99, b"\x1f\x8b", b"BZh9", bytes(1024)])
def test_what_is_no_archive(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "archive").write_bytes(content)
    if content == bytes(1024):  # the end of a tar: an archive of nothing
        unpack(tmp_path / "archive", tmp_path / "into")
        assert contents(tmp_path / "into") == {}
    else:
        assert "cannot be unpacked" in refused(tmp_path / "archive")


def test_a_missing_archive(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.zip: cannot be unpacked into .*: No such file or directory"):
        unpack(tmp_path / "absent.zip", tmp_path)


def test_a_password(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "archive", [("secret.txt", b"1")])
    data = bytearray(archive.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flag in the table of contents
    archive.write_bytes(data)
    assert "'secret.txt' needs a password" in refused(archive)


@pytest.mark.parametrize("names", [("a/b", "a"), ("a", "a/b")])
def test_a_folder_in_the_place_of_a_file(tmp_path: Path, names: tuple[str, str]) -> None:
    folder = tmp_path / "into"
    unpack(make_zip(tmp_path / "1", [(names[0], b"old"), ("c", b"old")]), folder)
    with pytest.raises(UserError, match="a folder in one and a file in the other; nothing was unpacked"):
        unpack(make_zip(tmp_path / "2", [(names[1], b"new"), ("c", b"new")]), folder)
    assert contents(folder) == {names[0]: b"old", "c": b"old"}


def test_a_link_that_lies_in_the_folder_already_is_not_followed_out(tmp_path: Path) -> None:
    folder, outside = tmp_path / "into", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (folder / "images").symlink_to(outside)
    archive = make_zip(tmp_path / "archive", [("images/a.jpg", b"a")])
    with pytest.raises(UserError, match="images is a link out of"):
        unpack(archive, folder)
    assert contents(outside) == {}
    (tmp_path / "alias").symlink_to(outside)  # the folder itself may be a link
    unpack(archive, tmp_path / "alias")
    assert contents(outside) == {"images/a.jpg": b"a"}


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(["zip", "", "gz"]), places=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255))))
def test_damage_anywhere_is_an_error_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, kind: str, places: list[tuple[float, int]]
) -> None:
    folder = tmp_path_factory.mktemp("damage")
    archive = make(kind, folder / "archive", TREE.items())
    data = bytearray(archive.read_bytes())
    for place, value in places:
        data[int(place * (len(data) - 1))] = value
    archive.write_bytes(data)
    with contextlib.suppress(UserError):
        unpack(archive, folder / "into")
    assert {path.name for path in folder.iterdir()} <= {"archive", "into"}
