"""Feature maps as arrays and images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from tests.exporting.small_model import small_model
from utils.reporting.feature_maps import CELL, COLUMNS, MOST_CHANNELS, recorded_maps, write_maps


def test_every_layer_but_the_head_is_recorded_while_the_block_runs() -> None:
    model = small_model()
    with torch.no_grad():
        with recorded_maps(model) as maps:
            model(torch.zeros(2, 3, 64, 96))
        layers = len(model.model) - 1
        assert len(maps) == layers
        assert [name.split("_")[0] for name in maps] == [f"stage{number}" for number in range(layers)]
        # The first layers halve the image.
        shapes = [tuple(value.shape) for value in maps.values()]
        assert all(shape[0] == 2 and 64 * shape[3] == 96 * shape[2] for shape in shapes)
        before = {name: value.clone() for name, value in maps.items()}
        model(torch.ones(2, 3, 64, 96))
    assert all(torch.equal(value, before[name]) for name, value in maps.items()), "nothing is recorded afterwards"


def test_recorded_is_what_the_layer_gives() -> None:
    model = small_model()
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad(), recorded_maps(model) as maps:
        model(images)
        first = model.model[0](images)
    torch.testing.assert_close(next(iter(maps.values())), first)


def colours(path: Path) -> Any:
    return cv2.imread(str(path))


def test_the_array_has_all_channels_of_the_first_image(tmp_path: Path) -> None:
    values = torch.rand(2, MOST_CHANNELS + 5, 3, 4)
    write_maps(tmp_path / "new" / "folder", {"stage0_Conv": values})
    written = tmp_path / "new" / "folder"
    assert sorted(path.name for path in written.iterdir()) == ["stage0_Conv_features.npy", "stage0_Conv_features.png"]
    np.testing.assert_array_equal(np.load(written / "stage0_Conv_features.npy"), values[0].numpy())
    # 32 cells of 4 x 3 values in 24-fold size, with 2 pixels between: 8 columns, 4 rows.
    image = colours(written / "stage0_Conv_features.png")
    assert image.shape == (MOST_CHANNELS // COLUMNS * (CELL * 3 // 4 + 2) - 2, COLUMNS * (CELL + 2) - 2, 3)


def test_each_channel_is_drawn_over_its_own_range(tmp_path: Path) -> None:
    shape = torch.tensor([[0.0, 1.0], [0.5, 0.25]])
    maps = torch.stack((shape, shape * 1000 - 7, torch.full((2, 2), 3.0)))[None]
    write_maps(tmp_path, {"a": maps})
    image = colours(tmp_path / "a_features.png")
    cells = [image[:CELL, left : left + CELL] for left in (0, CELL + 2, 2 * (CELL + 2))]
    np.testing.assert_array_equal(cells[0], cells[1])
    corners = {tuple(cells[0][y, x].tolist()) for y in (0, CELL - 1) for x in (0, CELL - 1)}
    assert len(corners) == 4
    # Viridis goes from dark violet to bright yellow; a channel of one value is all dark.
    assert (
        cells[0][0, 0].sum()
        < cells[0][CELL - 1, CELL - 1].sum()
        < cells[0][CELL - 1, 0].sum()
        < cells[0][0, CELL - 1].sum()
    )
    assert len(np.unique(cells[2].reshape(-1, 3), axis=0)) == 1


def test_maps_larger_than_a_cell_keep_their_size(tmp_path: Path) -> None:
    write_maps(tmp_path, {"a": torch.rand(1, 2, CELL + 4, CELL * 2)})
    assert colours(tmp_path / "a_features.png").shape == (CELL + 4, 2 * CELL * 2 + 2, 3)
