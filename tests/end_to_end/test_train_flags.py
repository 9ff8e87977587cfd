"""Each flag of train.py in a run of two epochs: it goes through, and it has its effect.

The model is yolov5n-spd, warm-started from the official yolov5n.pt, on blood cells (BCCD); where those files are not at
hand, one from scratch on coloured rectangles.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
import yaml

from models.weights import load_model
from models.yolo import DetectionModel
from tests.shared_data import SHARED
from tests.small_dataset import write_small_dataset
from utils.config.hyperparameters import Hyperparameters
from utils.config.train_flags import TrainConfig
from utils.dataset.image_cache import MappedImages, MemoryImages
from utils.geometry.records import Batch, HeadMaps
from utils.reporting.epoch_log import EpochRecord
from utils.runtime.process_ranks import ALONE, ProcessRanks
from utils.training import session
from utils.training.checkpoint import RunState, read_checkpoint, write_checkpoint
from utils.training.session import new_run, run_to_the_end, write_beginning
from utils.training.task import Task
from utils.user_error import UsageError, UserError
from utils.verbs.train import DETECTION, DetectionTask, begun, closes_something, train_detector

pytestmark = pytest.mark.slow
HAS_SHARED = (SHARED / "weights" / "yolov5n.pt").is_file() and (SHARED / "data" / "bccd").is_dir()


@dataclass(frozen=True)
class Trial:
    """What a run left behind and what its model was shown."""

    folder: Path
    start: dict[str, torch.Tensor]
    end: dict[str, torch.Tensor]
    frames: list[tuple[int, int]]  # of every training batch, height and width
    images: list[list[str]]  # file names of every training epoch
    rows: list[dict[str, float]]  # results.csv

    def rates(self) -> list[float]:
        return [row["x/lr2"] for row in self.rows]


def bccd(folder: Path, train: int | None, val: int | None) -> Path:
    """A dataset YAML over the first images of each split."""
    for split, count in (("train", train), ("val", val)):
        files = sorted((SHARED / "data" / "bccd" / "images" / split).iterdir())[:count]
        (folder / f"{split}.txt").write_text("".join(f"{file}\n" for file in files))
    path = folder / "bccd.yaml"
    path.write_text(f"path: {folder}\ntrain: train.txt\nval: val.txt\nnames: [RBC, WBC, Platelets]\n")
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    folder = tmp_path_factory.mktemp("data")
    data = bccd(folder, 12, 4) if HAS_SHARED else write_small_dataset(folder, train=12, val=4)
    return TrainConfig(
        weights=str(SHARED / "weights" / "yolov5n.pt") if HAS_SHARED else "",
        cfg="yolov5n-spd.yaml",
        data=str(data),
        imgsz=64,
        batch_size=4,
        epochs=2,
        workers=0,
        device="cpu",
        noplots=True,
        noautoanchor=True,
        project=str(tmp_path_factory.mktemp("runs")),
    )


def trial(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> Trial:
    run = new_run(DETECTION, config, ALONE)
    start = {name: value.clone() for name, value in run.learner.model.state_dict().items()}
    frames: list[tuple[int, int]] = []
    images: list[list[str]] = [[] for _ in range(config.epochs)]
    loss = type(run.learner.loss).__call__
    seen = 0

    def watched(self: object, maps: HeadMaps, batch: Batch, ranks: ProcessRanks = ALONE) -> object:
        nonlocal seen
        if batch.letterboxes[0] is None:  # a training batch
            frames.append((batch.size.height, batch.size.width))
            images[seen // run.learner.schedule.steps_per_epoch] += [path.name for path in batch.paths]
            seen += 1
        return loss(self, maps, batch, ranks)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(type(run.learner.loss), "__call__", watched)
        write_beginning(run)
        run_to_the_end(run)
    with (run.folder / "results.csv").open() as file:
        table = [[cell.strip() for cell in row] for row in csv.reader(file)]
    rows = [{name: float(cell or "nan") for name, cell in zip(table[0], row, strict=True)} for row in table[1:]]
    assert len(rows) == config.epochs
    assert all(math.isfinite(row["train/box_loss"]) and row["train/box_loss"] > 0 for row in rows)
    end = run.learner.model.state_dict()
    assert all(bool(torch.isfinite(value).all()) for value in end.values() if value.is_floating_point())
    return Trial(run.folder, start, end, frames, images, rows)


@pytest.fixture(scope="module")
def plain(base: TrainConfig) -> Trial:
    with pytest.MonkeyPatch.context() as monkeypatch:
        return trial(base, monkeypatch)


def changed(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in one if not torch.equal(one[name], other[name])}


def test_without_flags_every_image_is_seen_once_in_square_batches(base: TrainConfig, plain: Trial) -> None:
    assert plain.frames == [(64, 64)] * 6
    assert sorted(plain.images[0]) == sorted(plain.images[1]) and len(set(plain.images[0])) == 12
    assert plain.images[0] != plain.images[1]
    assert {"model.0.conv.weight", "model.24.m.0.bias"} <= changed(plain.start, plain.end)


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_optimizers(name: str, base: TrainConfig, plain: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    made = trial(replace(base, optimizer=name), monkeypatch)
    assert changed(made.end, plain.end) >= {"model.0.conv.weight"}  # plain is SGD


def test_multi_scale(base: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = trial(replace(base, imgsz=96, multi_scale=True), monkeypatch).frames
    assert len(set(sizes)) > 1
    assert all(height == width and height in (64, 96, 128) for height, width in sizes)


def test_cos_lr(base: TrainConfig, plain: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    made = trial(replace(base, epochs=3, cos_lr=True), monkeypatch)
    line = trial(replace(base, epochs=3), monkeypatch)
    # In epoch 1 of 3 the line stands at 1/3 of its way, the cosine at (1 - cos(pi / 3)) / 2 = 1/4.
    assert made.rates()[1] / line.rates()[1] == pytest.approx((1 - 0.99 / 4) / (1 - 0.99 / 3), rel=1e-3)


def test_quad(base: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    made = trial(replace(base, batch_size=8, quad=True), monkeypatch)
    # 12 images in batches of 8: two images of four, then one more.
    assert made.frames == [(128, 128)] * 4
    assert [len(names) for names in made.images] == [3, 3]


def test_rect(base: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    made = trial(replace(base, imgsz=128, rect=True), monkeypatch)
    assert set(made.frames) == {(96, 128)}  # images are 3 : 4
    assert sorted(made.images[0]) == sorted(made.images[1]) and len(set(made.images[0])) == 12


def test_image_weights(base: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    made = trial(replace(base, image_weights=True), monkeypatch)
    assert all(len(names) == 12 for names in made.images)
    assert any(len(set(names)) < 12 for names in made.images)  # drawn with replacement
    saved = torch.load(made.folder / "weights" / "last.pt", weights_only=True)
    assert len(saved["class_ap"]) == 3


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_cache(kind: str, base: TrainConfig, plain: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(base, cache=kind)
    run = new_run(DETECTION, config, ALONE)
    assert isinstance(run.task, DetectionTask)
    for loader in (run.task.images.training, run.task.images.evaluation):
        cache = loader.dataset._cache
        assert isinstance(cache, MemoryImages if kind == "ram" else MappedImages)
        assert cache.image(0).dtype == "uint8"
    made = trial(replace(config, exist_ok=True), monkeypatch)
    assert made.images == plain.images


def test_few_images_are_kept_without_the_flag(base: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def kept(config: TrainConfig) -> list[object]:
        run = new_run(DETECTION, config, ALONE)
        assert isinstance(run.task, DetectionTask)
        images = run.task.images
        return [loader.dataset._cache for loader in (images.training, images.evaluation)]

    training, evaluation = kept(base)
    assert isinstance(training, MemoryImages) and evaluation is None
    assert kept(replace(base, cache="none")) == [None, None]
    monkeypatch.setattr("utils.training.run_images.FEW_BYTES", training.layout.total - 1)
    assert kept(base) == [None, None]
    monkeypatch.setattr("utils.training.run_images.FEW_BYTES", training.layout.total)
    assert kept(base)[0] is not None


def test_single_cls(base: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    made = trial(replace(base, single_cls=True), monkeypatch)
    assert load_model(made.folder / "weights" / "last.pt").names == ("item",)
    assert all(row["train/cls_loss"] == 0 for row in made.rows)  # one class needs no choice


def test_freeze_by_count(base: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    made = trial(replace(base, freeze=("10",)), monkeypatch)
    parameters = {name for name, _ in load_model(made.folder / "weights" / "last.pt").named_parameters()}
    moved = changed(made.start, made.end) & parameters
    assert moved and min(int(name.split(".")[1]) for name in moved) == 10


def test_label_smoothing(base: TrainConfig, plain: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    made = trial(replace(base, label_smoothing=0.2), monkeypatch)
    assert made.rows[0]["train/cls_loss"] != plain.rows[0]["train/cls_loss"]
    assert made.rows[0]["train/box_loss"] == pytest.approx(plain.rows[0]["train/box_loss"], rel=0.2)
    assert yaml.safe_load((made.folder / "hyp.yaml").read_text())["label_smoothing"] == 0.2


def test_save_period(base: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    made = trial(replace(base, epochs=3, save_period=2, noval=True), monkeypatch)
    kept = sorted(file.name for file in (made.folder / "weights").iterdir())
    assert kept == ["best.pt", "epoch0.pt", "epoch2.pt", "last.pt"]
    assert isinstance(load_model(made.folder / "weights" / "epoch0.pt"), DetectionModel)
    # --noval evaluates after the last epoch only.
    assert [math.isnan(row["metrics/mAP_0.5:0.95"]) for row in made.rows] == [True, True, False]


def test_nosave(base: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    write = write_checkpoint

    def watched(path: Path, task: Task[Batch], state: RunState, *, resumable: bool) -> None:
        written.append(path.name)
        write(path, task, state, resumable=resumable)

    monkeypatch.setattr(session, "write_checkpoint", watched)
    # With --noval the last epoch is the only one evaluated, hence the best, whatever was learned.
    trial(replace(base, nosave=True, noval=True), monkeypatch)
    assert written == ["last.pt", "best.pt", "last.pt", "last.pt"]  # the beginning, the last epoch, the end


def test_seed(base: TrainConfig, plain: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    made = trial(replace(base, seed=1), monkeypatch)
    assert made.images != plain.images


def test_patience(base: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def after_one_epoch(records: Sequence[EpochRecord], patience: int) -> bool:
        asked.append(patience)
        return len(records) == 1

    monkeypatch.setattr(session, "patience_exhausted", after_one_epoch)
    folder = train_detector(replace(base, epochs=3, patience=7))
    assert asked and set(asked) == {7}
    assert len((folder / "results.csv").read_text().splitlines()) == 2  # header and one epoch


def test_fitness(base: TrainConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        made = trial(replace(base, fitness="2*AP_M+mAP50"), monkeypatch)
    values = [2 * row["metrics/AP_M"] + row["metrics/mAP_0.5"] for row in made.rows]
    assert [row["fitness"] for row in made.rows] == pytest.approx(values, abs=1e-4)
    best = values.index(max(values))
    assert f"best epoch: {best}, 2*AP_M+mAP50 is {values[best]:.3f}" in caplog.text
    content = read_checkpoint(made.folder / "weights" / "last.pt")  # what a resumed run goes by
    assert content["config"]["fitness"] == "2*AP_M+mAP50"
    assert [record["own_fitness"] for record in content["records"]] == pytest.approx(values, abs=1e-4)


def test_a_fitness_of_objects_that_are_not_there_is_told_before_the_first_epoch(
    base: TrainConfig, tmp_path: Path
) -> None:
    data = write_small_dataset(tmp_path, train=2, val=2)
    runs = tmp_path / "runs"
    with pytest.raises(UserError, match="--fitness AP_L: the validation images have no object that AP_L counts"):
        train_detector(replace(base, data=str(data), fitness="AP_L", project=str(runs)))
    assert not runs.exists()


def test_close_mosaic(
    base: TrainConfig, plain: Trial, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        made = trial(replace(base, close_mosaic=1), monkeypatch)
    assert made.images == plain.images
    (_, first, last), (_, plain_first, plain_last) = (
        (run.folder / "results.csv").read_text().splitlines() for run in (made, plain)
    )
    assert first == plain_first and last != plain_last
    assert [line for line in caplog.messages if "closed" in line] == ["mosaic is closed for the last 1 epoch"]


def test_close_mosaic_without_mosaics_says_that_it_changes_nothing(
    base: TrainConfig, caplog: pytest.LogCaptureFixture
) -> None:
    begun(replace(base, close_mosaic=2, rect=True), ALONE)
    assert "--close-mosaic 2: changes nothing: there are no mosaics with --rect" in caplog.messages
    assert closes_something(replace(base, rect=True), Hyperparameters(paste_small=0.5))


def test_noplots(base: TrainConfig, plain: Trial) -> None:
    assert not list(plain.folder.glob("*.png")) and not list(plain.folder.glob("*.jpg"))
    drawn = {file.name for file in train_detector(replace(base, epochs=1, noplots=False)).iterdir()}
    assert {"labels.png", "results.png", "PR_curve.png", "train_batch0.jpg"} <= drawn


def test_noautoanchor(base: TrainConfig, plain: Trial, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hyp = tmp_path / "hyp.yaml"
    hyp.write_text("anchor_t: 1.2\n")  # hardly any object has an anchor as near as that
    config = replace(base, hyp=str(hyp))
    kept = begun(config, ALONE).learner.model.anchors
    with caplog.at_level("INFO"):
        fitted = begun(replace(config, noautoanchor=False), ALONE).learner.model.anchors
    assert not torch.equal(kept, fitted)
    lines = [message for message in caplog.messages if "best possible recall" in message]
    assert len(lines) == 2 and lines[0].startswith("anchors:") and lines[1].startswith("re-fitted anchors:")
    assert "--noautoanchor" not in caplog.text  # a fresh head has no anchors to keep
    with caplog.at_level("INFO"):
        begun(replace(config, noautoanchor=False, weights=str(plain.folder / "weights" / "best.pt")), ALONE)
    missed = 100 * (1 - float(lines[0].split(",")[0].split()[-1]))
    (warning,) = [message for message in caplog.messages if "--noautoanchor" in message]
    assert warning.startswith("the head from best.pt was trained for the anchors before")
    assert float(warning.split(" %")[0].split()[-1]) == pytest.approx(missed, abs=0.06)


def test_project_name_and_exist_ok(base: TrainConfig, tmp_path: Path) -> None:
    config = replace(base, epochs=0, project=str(tmp_path), name="mine")
    assert [train_detector(config).name for _ in range(2)] == ["mine", "mine2"]
    assert train_detector(replace(config, exist_ok=True)).name == "mine"


def test_batch_size_from_the_memory_is_16_on_the_cpu(base: TrainConfig, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        run = new_run(DETECTION, replace(base, batch_size=-1), ALONE)
    assert run.config.batch_size == 16
    assert any("--batch-size -1" in message and "CPU" in message for message in caplog.messages)


def test_a_loss_that_is_not_finite_names_the_last_good_checkpoint(base: TrainConfig, tmp_path: Path) -> None:
    run = new_run(DETECTION, replace(base, project=str(tmp_path)), ALONE)
    write_beginning(run)
    torch.nn.init.constant_(next(run.learner.model.parameters()), math.inf)
    with pytest.raises(UserError, match=r"epoch 0, step 0: the loss is not finite .*last\.pt") as caught:
        run_to_the_end(run)
    message = str(caught.value)
    assert "\n" not in message
    named = Path(message.rsplit(" ", 1)[1])
    assert all(bool(torch.isfinite(v).all()) for v in load_model(named).state_dict().values() if v.is_floating_point())


@pytest.mark.acceptance
@pytest.mark.skipif(not HAS_SHARED, reason="needs the BCCD images and yolov5n.pt")
@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "SGD"},
        {"optimizer": "Adam"},
        {"optimizer": "AdamW"},
        {"multi_scale": True},
        {"cos_lr": True},
        {"quad": True},
        {"rect": True},
        {"image_weights": True},
        {"cache": "ram"},
        {"cache": "disk"},
        {"single_cls": True},
        {"freeze": ("10",)},
    ],
    ids=lambda changes: "-".join(f"{name}={value}" for name, value in changes.items()),
)
def test_all_of_bccd(
    changes: dict[str, object], base: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = str(bccd(tmp_path, None, None))
    config = replace(base, data=data, imgsz=160, batch_size=16, project=str(tmp_path), **changes)  # type: ignore[arg-type]
    made = trial(config, monkeypatch)
    assert made.rows[1]["train/obj_loss"] < made.rows[0]["train/obj_loss"] * 1.5
    assert (made.folder / "metrics.json").is_file()


def test_sync_bn_needs_processes_on_cuda(base: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--sync-bn: needs several processes on CUDA"):
        train_detector(replace(base, sync_bn=True, project=str(tmp_path)))


def test_local_rank_needs_a_launcher(base: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--local-rank 0: is set by a launcher"):
        train_detector(replace(base, local_rank=0, project=str(tmp_path)))


def test_loggers(base: TrainConfig, tmp_path: Path) -> None:
    config = replace(base, epochs=1, project=str(tmp_path))
    runs = [train_detector(config), train_detector(replace(config, loggers=("none",)))]
    assert [len(list(run.glob("events.out.tfevents.*"))) for run in runs] == [1, 0]
