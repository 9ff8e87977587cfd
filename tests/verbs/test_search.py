"""What a study writes, from trials whose fitness is a known function of the hyperparameters."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import optuna
import pytest
import yaml

from utils.config.hyperparameters import Hyperparameters
from utils.config.train_flags import TrainConfig
from utils.reporting.epoch_log import EpochRecord
from utils.verbs.search import SEARCH_SPACE, FitnessReport, new_study, search_space, write_results

pytestmark = pytest.mark.slow


def record(epoch: int, fitness: float) -> EpochRecord:
    figures = {"train_box": 1.0, "train_obj": 1.0, "train_cls": 1.0, "lr0": 0.1, "lr1": 0.1, "lr2": 0.1}
    return EpochRecord(epoch=epoch, **figures, map50=fitness, map50_95=fitness)


def test_results_of_a_study(tmp_path: Path) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(30):
        trial = study.ask()
        drawn = {name: trial.suggest_float(name, low, high) for name, (low, high) in SEARCH_SPACE.items()}
        study.tell(trial, 1 - abs(drawn["momentum"] - 0.9))
    write_results(study, Hyperparameters(anchor_t=3.0, fl_gamma=1.5), tmp_path)
    best = yaml.safe_load((tmp_path / "hyp_evolved.yaml").read_text())
    with (tmp_path / "evolve.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30
    assert best["momentum"] == pytest.approx(
        min((float(row["momentum"]) for row in rows), key=lambda value: abs(value - 0.9)), rel=1e-5
    )
    assert best["fl_gamma"] == 1.5  # what is not searched stays as it was given
    Hyperparameters(**best)
    image = cv2.imread(str(tmp_path / "evolve.png"))
    assert image is not None and image.shape[1] > 1000  # history and importance side by side


@pytest.mark.parametrize(
    ("cfg", "searched", "left"),
    [
        ("yolov5n-u.yaml", {"free_box": 7.5, "free_cls": 0.5, "free_dfl": 1.5}, {"box", "obj", "cls_pw", "anchor_t"}),
        ("yolov5n.yaml", {"box": 0.05, "obj": 1.0, "anchor_t": 4.0}, {"free_box", "free_cls", "free_dfl"}),
    ],
)
def test_only_what_the_models_head_knows_is_searched(
    cfg: str, searched: dict[str, float], left: set[str], tmp_path: Path
) -> None:
    _, study = new_study(TrainConfig(weights="", cfg=cfg, evolve=1, project=str(tmp_path)))
    first = study.get_trials()[0].system_attrs["fixed_params"]
    assert searched.items() <= first.items() and not left & first.keys()
    assert first.keys() == search_space(study).keys()


def test_a_run_behind_the_median_is_pruned() -> None:
    study = optuna.create_study(
        direction="maximize", pruner=optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=0)
    )
    for _ in range(2):
        report = FitnessReport(study.ask())
        for epoch, fitness in enumerate((0.5, 0.6, 0.55)):
            report.on_epoch(record(epoch, fitness))
        assert report.best == pytest.approx(0.6)
        study.tell(report.trial, report.best)
    report = FitnessReport(study.ask())
    with pytest.raises(optuna.TrialPruned):
        report.on_epoch(record(0, 0.1))
