"""Exports are put in their place whole, and nothing of others is lost there."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from utils.exporting.export_settings import EmbeddedSuppression, ExportPrecision, ExportSettings
from utils.exporting.formats import file_beside, folder_beside, put_in_place
from utils.geometry.letterbox import FrameSize
from utils.user_error import UsageError, UserError


def _export(final: Path, text: str) -> None:
    with folder_beside(final) as folder:
        fresh = folder / final.name
        if final.name.endswith("_openvino_model"):
            fresh.mkdir()
            (fresh / "net.xml").write_text(text, encoding="utf-8")
        else:
            fresh.write_text(text, encoding="utf-8")
        put_in_place(fresh, final)


@pytest.mark.case("Export", "an export over one of the same name", "replaces it; “replaces an earlier export”")
def test_an_older_export_makes_room_and_that_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    file, folder = tmp_path / "net.onnx", tmp_path / "net_openvino_model"
    for text in ("first", "second"):
        assert caplog.messages == []
        _export(file, text)
        _export(folder, text)
    assert caplog.messages == [f"{path}: replaces an earlier export" for path in (file, folder)]
    assert file.read_text(encoding="utf-8") == (folder / "net.xml").read_text(encoding="utf-8") == "second"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.onnx", "net_openvino_model"]


@pytest.mark.case("Export", "`--half`, `--int8` and `--nms` after a plain export", "each has a name of its own")
def test_each_kind_of_export_has_its_own_name() -> None:
    plain, suppressing = ExportSettings(FrameSize(64, 64)), EmbeddedSuppression()
    kinds = [replace(plain, precision=precision) for precision in get_args(ExportPrecision)]
    kinds.append(replace(plain, suppression=suppressing))
    names = [file_beside(Path("runs/best.pt"), form, kind).name for form in ("onnx", "openvino") for kind in kinds]
    assert names == [
        *("best.onnx", "best_fp16.onnx", "best_int8.onnx", "best_nms.onnx"),
        *("best_openvino_model", "best_fp16_openvino_model", "best_int8_openvino_model", "best_nms_openvino_model"),
    ]


def test_what_no_export_has_written_stays(tmp_path: Path) -> None:
    notes = tmp_path / "net.onnx" / "notes.txt"
    notes.parent.mkdir()
    notes.write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match=r"net\.onnx: is a folder"):
        _export(notes.parent, "new")
    in_folder = tmp_path / "net_openvino_model" / "notes.txt"
    _export(in_folder.parent, "old")
    in_folder.write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match=r"net_openvino_model: holds notes\.txt"):
        _export(in_folder.parent, "new")
    file = tmp_path / "other_openvino_model"
    file.write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match="other_openvino_model: is a file"):
        _export(file, "new")
    assert {path.read_text(encoding="utf-8") for path in (notes, in_folder, file)} == {"mine"}


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UsageError("--opset 12: no"), "not written, --opset 12: no"),
        (OSError(errno.ENOSPC, "No space left on device"), "not written, No space left on device"),
    ],
)
def test_a_failure_names_the_file_that_was_asked_for(tmp_path: Path, error: Exception, message: str) -> None:
    final = tmp_path / "net.onnx"
    with pytest.raises(UserError, match=rf"^{final}: {message}$"), folder_beside(final):
        raise error
    assert not list(tmp_path.iterdir())
