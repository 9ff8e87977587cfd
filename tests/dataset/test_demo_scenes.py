"""The generated data set: repeatable, whole or absent, its labels those of small objects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from utils.dataset.demo_scenes import NAMES, SceneSize, draw_scene, write_demo_scenes
from utils.dataset.demo_scenes.__main__ import main
from utils.dataset.detection_dataset import open_dataset
from utils.runtime.console_log import run_verb


def test_a_scene_is_a_function_of_its_generator() -> None:
    first, rows, quality = draw_scene(np.random.default_rng((0, 1, 2)), (160, 192))
    again, rows_again, quality_again = draw_scene(np.random.default_rng((0, 1, 2)), (160, 192))
    assert first.shape == (160, 192, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert (rows, quality) == (rows_again, quality_again)
    other, _, _ = draw_scene(np.random.default_rng((0, 1, 3)), (160, 192))
    assert not np.array_equal(first, other)


def test_the_written_data_set_is_sound_and_written_once(tmp_path: Path) -> None:
    root = write_demo_scenes(tmp_path / "scenes", SceneSize(train=1, val=1))
    dataset = open_dataset((root / "images" / "train", root / "images" / "val"), NAMES, cache_folder=tmp_path)
    assert len(dataset) == 2
    assert dataset.index.problems == ()
    assert dataset.index.unlabelled == 0
    boxes = np.concatenate([dataset.source_labels(i).boxes for i in range(2)])
    longer = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    assert len(boxes) > 5
    assert longer.min() >= 3  # 6 px, up to 40 % cut by the border
    assert longer.max() <= 41
    assert all(416 <= side <= 640 for i in range(2) for side in dataset.source_size(i))

    (root / "images" / "train" / "0000.jpg").unlink()
    write_demo_scenes(root, SceneSize(train=1, val=1))
    assert not (root / "images" / "train" / "0000.jpg").exists()


@pytest.mark.parametrize(
    ("flags", "code", "told"),
    [
        (
            ("--val", "0"),
            2,
            "error: --train 240 --val 0 --seed 0: at least 1 image each and a seed of at least 0 are needed\n",
        ),
        (("--root", "file/scenes"), 1, "error: file/scenes.unfinished/images/train: Not a directory\n"),
    ],
)
def test_a_mistake_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: tuple[str, ...],
    code: int,
    told: str,
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["demo_scenes", *flags])
    assert (run_verb(main), capsys.readouterr().err) == (code, told)
