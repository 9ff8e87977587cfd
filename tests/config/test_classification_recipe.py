"""Recipes of classification runs, and which of recipe and flag wins."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from utils.config.classification_recipe import ClassificationRecipe, parse_with_recipe, read_recipe
from utils.config.classify_flags import ClassifyTrainConfig
from utils.config.hyperparameters import HYPS
from utils.user_error import UsageError, UserError


def parsed(*words: str) -> ClassifyTrainConfig:
    return parse_with_recipe(list(words), prog="classify/train.py", description="")


def test_the_file_of_the_defaults_says_the_defaults() -> None:
    path = HYPS / "hyp.classify.yaml"
    assert read_recipe(path) == ClassificationRecipe()
    keys = [line.split(":")[0] for line in path.read_text(encoding="utf-8").splitlines() if line[:1].isalpha()]
    assert keys == list(asdict(ClassificationRecipe()))


def test_yolov5s_defaults() -> None:
    config = parsed()
    named = (config.model, config.data, config.epochs, config.batch_size, config.imgsz, config.optimizer)
    assert named == ("yolov5s-cls.pt", "imagenette160", 10, 64, 224, "Adam")
    assert (config.lr0, config.decay, config.label_smoothing, config.workers) == (0.001, 5e-5, 0.1, 8)
    assert (config.project, config.name, config.seed) == ("runs/train-cls", "exp", 0)


@pytest.mark.parametrize(
    ("name", "batch", "lr0", "momentum", "decay"),
    [("tiny-imagenet", 256, 0.01793, 0.9447, 0.002113), ("cifar10", 128, 0.1, 0.9, 5e-4)],
)
def test_the_papers_recipes(name: str, batch: int, lr0: float, momentum: float, decay: float) -> None:
    recipe = read_recipe(HYPS / f"hyp.classify-{name}.yaml")
    assert (recipe.batch_size, recipe.lr0, recipe.momentum, recipe.decay) == (batch, lr0, momentum, decay)
    assert (recipe.milestones, recipe.gamma, recipe.warmup_epochs, recipe.epochs) == ((60, 120, 160), 0.2, 1.0, 200)
    assert recipe.optimizer == "SGD"


def test_a_flag_wins_over_the_recipe_and_the_recipe_over_the_default() -> None:
    config = parsed("--hyp", "hyp.classify-cifar10.yaml", "--epochs", "3")
    assert (config.epochs, config.batch_size, config.lr0, config.optimizer) == (3, 128, 0.1, "SGD")
    recipe = read_recipe(HYPS / "hyp.classify-cifar10.yaml").with_flags_of(config)
    assert (recipe.epochs, recipe.batch_size, recipe.momentum) == (3, 128, 0.9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr: 0.1", r"unknown hyperparameter 'lr'; the nearest one is 'lr[0f]'"),
        ("lr0: fast", "lr0: 'fast' is not a number"),
        ("milestones: [60, 30]", r"milestones: \(60, 30\) is not a list of rising epochs"),
        ("milestones: 60", "milestones: 60 is not a list of rising epochs"),
        ("optimizer: sgd", "optimizer: 'sgd' is none of SGD, Adam"),
        ("crop_area: 2", "crop_area: 2 is outside 0.01 to 1"),
        ("epochs: 1.5", "epochs: 1.5 is not a whole number"),
    ],
)
def test_a_mistake_names_file_key_and_value(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "hyp.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"hyp\.yaml: {message}") as caught:
        read_recipe(path)
    assert "\n" not in str(caught.value)


def test_a_number_without_a_point_is_a_number(tmp_path: Path) -> None:
    path = tmp_path / "hyp.yaml"
    path.write_text("decay: 1e-4\nmilestones: [2, 4]\n")
    assert read_recipe(path) == ClassificationRecipe(decay=1e-4, milestones=(2, 4))


def test_one_file_to_start_from() -> None:
    with pytest.raises(UsageError, match="both are files to start from"):
        parsed("--model", "a.pt", "--weights", "b.pt")
