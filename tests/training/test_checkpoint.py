"""What an older or killed run left in the folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from utils.reporting.run_directory import set_aside_older
from utils.training.checkpoint import OF_ONE_RUN, keep_previous, previous_of, remove_unfinished


def contents(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def refuse(*paths: Path) -> None:
    raise OSError("no hard links here")


@pytest.mark.parametrize("links", [True, False])
def test_the_checkpoint_before_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    if not links:
        monkeypatch.setattr(os, "link", refuse)
    last = tmp_path / "last.pt"
    keep_previous(last)  # nothing to keep yet
    assert contents(tmp_path) == {} and previous_of(last) is None
    (tmp_path / ".last.prev.pt").write_text("of a killed run")
    for epoch in range(3):
        keep_previous(last)
        (tmp_path / "new").write_text(f"epoch {epoch}")
        (tmp_path / "new").replace(last)  # as checkpoints are written: whole, into the place of the old one
    kept = contents(tmp_path)
    assert kept == {"last.pt": "epoch 2", "last.prev.pt": "epoch 1"}
    assert previous_of(last) == tmp_path / "last.prev.pt"


def test_only_last_has_a_previous_one(tmp_path: Path) -> None:
    (tmp_path / "last.prev.pt").write_text("x")
    assert previous_of(tmp_path / "best.pt") is None


def test_an_older_run_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "weights").mkdir()
    set_aside_older(tmp_path, OF_ONE_RUN)
    assert caplog.records == []
    for name in ("weights/last.pt", "weights/best.pt", "results.csv", "results.csv.older", "notes.txt"):
        (tmp_path / name).write_text(name)
    set_aside_older(tmp_path, OF_ONE_RUN)
    assert contents(tmp_path) == {
        "weights/last.pt.older": "weights/last.pt",
        "weights/best.pt.older": "weights/best.pt",
        "results.csv.older": "results.csv",  # the newer of the two
        "notes.txt": "notes.txt",  # the user's own
    }
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_half_written_checkpoints_are_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    kept = ("last.pt", "last.prev.pt", ".hidden", "a.pt.b")
    for name in (*kept, ".last.pt.x1y2", ".best.pt.tmp"):
        (tmp_path / "weights" / name).write_text("x")
    remove_unfinished(tmp_path)
    assert sorted(path.name for path in (tmp_path / "weights").iterdir()) == sorted(kept)
