"""train.py's flags against YOLOv5's: default of each, what refuses it, and which test shows its effect."""

from __future__ import annotations

from dataclasses import fields

import pytest

from tests.shared_data import REPOSITORY
from utils.config.command_line import parse_command_line
from utils.config.train_flags import REFUSED_TRAIN_FLAGS, TrainConfig
from utils.user_error import UsageError

# Default of every flag with an effect.
DEFAULTS: dict[str, object] = {
    "rect": False,
    "cache": None,
    "image_weights": False,
    "multi_scale": False,
    "single_cls": False,
    "quad": False,
    "cos_lr": False,
    "close_mosaic": 0,
    "label_smoothing": 0.0,
    "freeze": ("0",),
    "save_period": -1,
    "batch_size": 16,
    "fitness": "0.1*mAP50+0.9*mAP50-95",
    "evolve": None,
    "evolve_population": "",
    "resume_evolve": "",
    "loggers": None,
    "sync_bn": False,
    "local_rank": -1,
    "tile": None,
}
# Flag -> test in tests/end_to_end/test_train_flags.py or test_hyperparameter_search.py that shows its effect.
EFFECTS = {
    "optimizer": "test_optimizers",
    "multi_scale": "test_multi_scale",
    "cos_lr": "test_cos_lr",
    "close_mosaic": "test_close_mosaic",
    "quad": "test_quad",
    "rect": "test_rect",
    "image_weights": "test_image_weights",
    "cache": "test_cache",
    "single_cls": "test_single_cls",
    "freeze": "test_freeze_by_count",
    "label_smoothing": "test_label_smoothing",
    "save_period": "test_save_period",
    "noval": "test_save_period",
    "fitness": "test_fitness",
    "nosave": "test_nosave",
    "seed": "test_seed",
    "patience": "test_patience",
    "noplots": "test_noplots",
    "noautoanchor": "test_noautoanchor",
    "project": "test_project_name_and_exist_ok",
    "name": "test_project_name_and_exist_ok",
    "exist_ok": "test_project_name_and_exist_ok",
    "batch_size": "test_batch_size_from_the_memory_is_16_on_the_cpu",
    "evolve": "test_evolve_population_and_its_result",
    "evolve_population": "test_evolve_population_and_its_result",
    "resume_evolve": "test_a_killed_study_goes_on_in_two_processes",
    "loggers": "test_loggers",
    "sync_bn": "test_sync_bn_needs_processes_on_cuda",
    "local_rank": "test_local_rank_needs_a_launcher",
}


def parse(*argv: str) -> TrainConfig:
    return parse_command_line(TrainConfig, argv, prog="train.py", description="", refused=REFUSED_TRAIN_FLAGS)


def test_defaults() -> None:
    assert {name: getattr(parse(), name) for name in DEFAULTS} == DEFAULTS


def test_tiles() -> None:
    assert (parse("--tile").tile, parse("--tile", "0").tile, parse("--tile", "320").tile) == (640, 0, 320)
    with pytest.raises(UsageError, match="--tile 16: must be at least 32, or 0 for whole images"):
        parse("--tile", "16")


def test_the_last_epochs_are_closed() -> None:
    argv = ("--epochs", "5", "--close-mosaic")
    assert [parse(*argv, number).closed_from for number in ("0", "1", "5")] == [None, 4, 0]


def test_each_flag_has_its_test() -> None:
    assert set(EFFECTS) <= {item.name for item in fields(TrainConfig)}
    folder = REPOSITORY / "tests" / "end_to_end"
    files = (folder / "test_train_flags.py", folder / "test_hyperparameter_search.py")
    tests = "".join(file.read_text(encoding="utf-8") for file in files)
    assert [test for test in EFFECTS.values() if f"def {test}(" not in tests] == []


@pytest.mark.parametrize("name", ["bucket", "entity", "upload_dataset", "bbox_interval", "artifact_alias"])
def test_flags_of_services_are_refused_with_what_to_use_instead(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(f"--{name}", "x")
    message = str(caught.value)
    assert f"--{name.replace('_', '-')}: " in message and len(message) > 40 and "\n" not in message


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--batch-size", "0"), "--batch-size 0"),
        (("--quad", "--batch-size", "6"), "multiple of 4"),
        (("--rect", "--image-weights"), "leave one out"),
        (("--cache", "cloud"), "cloud"),
        (("--label-smoothing", "0.7"), "at most 0.5"),
        (("--close-mosaic", "-1"), "--close-mosaic -1"),
        (("--close-mosaic", "6", "--epochs", "5"), "--close-mosaic 6: more than the run's 5 epochs"),
    ],
)
def test_values_that_cannot_be(argv: tuple[str, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse(*argv)


def test_values_that_may_be_left_out_or_are_several() -> None:
    assert parse("--cache").cache == "ram"
    assert parse("--cache", "disk").cache == "disk"
    assert parse("--cache", "none").cache == "none"
    assert parse("--freeze", "0", "3", "model.24").freeze == ("0", "3", "model.24")


def test_help_groups_the_flags(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--help")
    text = capsys.readouterr().out
    places = [text.index(f"\n{title}:\n") for title in ("Model", "Data", "Recipe", "Run", "Output")]
    assert places == sorted(places)
