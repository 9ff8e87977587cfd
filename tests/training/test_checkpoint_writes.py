"""A checkpoint whose writing fails: the one before it stays."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import IO, Any

import pytest
import torch

from tests.small_dataset import write_small_dataset
from utils.config.train_flags import TrainConfig
from utils.geometry.records import Batch
from utils.runtime.process_ranks import ALONE
from utils.training.checkpoint import read_checkpoint, write_checkpoint
from utils.training.session import TrainingRun, new_run
from utils.user_error import UserError
from utils.verbs.train import DETECTION

pytestmark = pytest.mark.slow
PARTS = 8  # places of the file at which the disk is full


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TrainingRun[Batch]:
    folder = tmp_path_factory.mktemp("small")
    data = write_small_dataset(folder, train=2, val=1)
    config = TrainConfig(
        weights="", cfg="yolov5n-spd.yaml", data=str(data), imgsz=64, workers=0, noautoanchor=True, project=str(folder)
    )
    return new_run(DETECTION, config, ALONE)


def test_a_disk_that_is_full_after_any_part_of_the_file(
    run: TrainingRun[Batch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.pt"
    write_checkpoint(path, run.task, run.state, resumable=True)
    before = path.read_bytes()
    real = tempfile.NamedTemporaryFile
    for part in range(PARTS):
        room = len(before) * part // PARTS

        def full(*arguments: Any, room: int = room, **options: Any) -> Any:
            file: Any = real(*arguments, **options)
            write = file.file.write
            left = [room]

            def limited(data: bytes) -> int:
                left[0] -= len(memoryview(data).cast("B"))
                if left[0] < 0:
                    raise OSError(errno.ENOSPC, "No space left on device")
                return int(write(data))

            file.write = limited
            return file

        with monkeypatch.context() as patch:
            patch.setattr(tempfile, "NamedTemporaryFile", full)
            with pytest.raises(UserError, match=r"last\.pt: cannot write the checkpoint") as caught:
                write_checkpoint(path, run.task, run.state, resumable=True)
        assert "\n" not in str(caught.value)
        assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]
        assert path.read_bytes() == before
    assert read_checkpoint(path)["finished"] is False


def test_a_disk_that_is_full_when_the_file_is_synced(
    run: TrainingRun[Batch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.pt"
    write_checkpoint(path, run.task, run.state, resumable=True)
    kept = torch.load(path, weights_only=True)["average_updates"]

    def full(_: IO[bytes]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"cannot write the checkpoint: .*No space left"):
        write_checkpoint(path, run.task, run.state, resumable=True)
    assert torch.load(path, weights_only=True)["average_updates"] == kept
