"""Images that several processes have looked at."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.dataset.images import small_dataset
from utils.evaluation.evaluated_images import EvaluatedImage, images_of_all, true_labels
from utils.geometry.records import Detections
from utils.runtime.process_ranks import ProcessRanks


def test_a_process_without_images_exchanges_what_one_with_images_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = small_dataset(tmp_path, 1)
    exchanged: list[torch.Tensor] = []

    def all_rows(_: ProcessRanks, rows: torch.Tensor) -> torch.Tensor:  # as if the other process had nothing
        exchanged.append(rows)
        return rows

    monkeypatch.setattr(ProcessRanks, "all_rows", all_rows)
    ranks = ProcessRanks(torch.device("cpu"), rank=1, world=2)
    labels = true_labels(dataset, 0, single_cls=False)
    found = Detections(torch.ones((2, 4)), torch.ones(2), torch.zeros(2, dtype=torch.int64), labels.size)
    kinds = []
    for images in ([EvaluatedImage(0, labels, found)], []):
        exchanged.clear()
        assert len(images_of_all(images, dataset, False, ranks)) == len(images)
        kinds.append([(rows.dtype, rows.shape[1]) for rows in exchanged])
    assert kinds[0] == kinds[1] and len(kinds[0]) == 2
