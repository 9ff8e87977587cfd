"""A file is there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from utils.runtime.atomic_files import atomic_file, write_text


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    write_text(path, "old")
    with pytest.raises(OSError, match="disk"), atomic_file(path) as file:
        file.write(b"new, half writ")
        raise OSError("disk full")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.csv"]


def test_the_new_file_replaces_the_old_and_is_readable(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    write_text(path, "new")
    assert path.read_text() == "new"
    plain = tmp_path / "plain.txt"
    plain.write_text("")
    assert path.stat().st_mode == plain.stat().st_mode
