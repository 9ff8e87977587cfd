"""Hyperparameters: the files' values, ranges, and what a mistake says."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from utils.config.hyperparameters import REPOSITORY, Hyperparameters, find_hyperparameters, read_hyperparameters
from utils.user_error import UserError

HYPS = REPOSITORY / "data" / "hyps"

# The values that YOLOv5 publishes, in the order lrf, cls, obj, scale, mosaic, mixup, copy_paste.
PUBLISHED = {
    "scratch-low": (0.01, 0.5, 1.0, 0.5, 1.0, 0.0, 0.0),
    "scratch-med": (0.1, 0.3, 0.7, 0.9, 1.0, 0.1, 0.0),
    "scratch-high": (0.1, 0.3, 0.7, 0.9, 1.0, 0.1, 0.1),
    "no-augmentation": (0.1, 0.3, 0.7, 0.0, 0.0, 0.0, 0.0),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_values(name: str) -> None:
    hyp = read_hyperparameters(HYPS / f"hyp.{name}.yaml")
    assert (hyp.lrf, hyp.cls, hyp.obj, hyp.scale, hyp.mosaic, hyp.mixup, hyp.copy_paste) == PUBLISHED[name]
    assert (hyp.lr0, hyp.momentum, hyp.weight_decay, hyp.box, hyp.iou_t) == (0.01, 0.937, 0.0005, 0.05, 0.2)
    assert (hyp.warmup_epochs, hyp.warmup_momentum, hyp.warmup_bias_lr) == (3.0, 0.8, 0.1)
    assert (hyp.anchor_t, hyp.fl_gamma, hyp.cls_pw, hyp.obj_pw) == (4.0, 0.0, 1.0, 1.0)
    colour = (0.0, 0.0, 0.0, 0.0) if name == "no-augmentation" else (0.015, 0.7, 0.4, 0.5)
    assert (hyp.hsv_h, hyp.hsv_s, hyp.hsv_v, hyp.fliplr) == colour
    assert (hyp.degrees, hyp.shear, hyp.perspective, hyp.flipud) == (0, 0, 0, 0)
    assert (hyp.nominal_batch, hyp.nwd) == (64, 0.0)


def test_the_defaults_are_those_of_scratch_low() -> None:
    assert read_hyperparameters(HYPS / "hyp.scratch-low.yaml") == Hyperparameters()


def test_every_line_of_the_files_has_its_comment() -> None:
    for file in HYPS.glob("*.yaml"):
        for line in file.read_text().splitlines():
            assert not line or line.startswith("#") or " # " in line, f"{file.name}: {line}"


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    hyp = Hyperparameters(lr0=1e-3, mixup=0.25, nominal_batch=16)
    file = tmp_path / "hyp.yaml"
    file.write_text(yaml.safe_dump(hyp.to_dict(), sort_keys=False))
    assert read_hyperparameters(file) == hyp
    assert list(hyp.to_dict()) == [entry.name for entry in fields(Hyperparameters)]


def test_numbers_that_yaml_reads_as_text(tmp_path: Path) -> None:
    file = tmp_path / "hyp.yaml"
    file.write_text("lr0: 1e-3\n")
    assert read_hyperparameters(file).lr0 == 0.001


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("mosiac: 1.0", "unknown hyperparameter 'mosiac'; the nearest one is 'mosaic'"),
        ("lr0: -1", "lr0: -1 is outside"),
        ("lr0: .nan", "lr0: nan is outside"),
        ("mixup: 1.5", "mixup: 1.5 is outside 0 to 1"),
        ("lr0: fast", "lr0: 'fast' is not a number"),
        ("lr0: true", "lr0: True is not a number"),
        ("lr0:", "lr0: None is not a number"),
        ("nominal_batch: 16.5", "nominal_batch: 16.5 is not a whole number"),
        ("nominal_batch: 0", "nominal_batch: 0 is outside"),
        ("- lr0", "a table of keys"),
        ("lr0: [", "not valid YAML"),
        ("lr0: !!python/name:os.system ''", "not valid YAML"),
        ("3: 1", "unknown hyperparameter 3"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, content: str, text: str) -> None:
    file = tmp_path / "hyp.yaml"
    file.write_text(content)
    with pytest.raises(UserError) as caught:
        read_hyperparameters(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_find_by_name() -> None:
    for name in ("hyp.demo", "hyp.demo.yaml", "data/hyps/hyp.demo.yaml"):
        assert find_hyperparameters(name).resolve() == HYPS / "hyp.demo.yaml"
    with pytest.raises(UserError, match="none-such"):
        find_hyperparameters("none-such")
