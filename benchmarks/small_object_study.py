"""Does SPD-Conv help small objects? Models trained alike from scratch on data whose objects are small, over seeds.

    python -m benchmarks.small_object_study --cpu-budget 8h
    python -m benchmarks.small_object_study --root bccd=~/data/bccd --seeds 0 1 2 3 4 --cpu-budget 20h
    python -m benchmarks.small_object_study --data my.yaml@320 --models yolov5n yolov5n-spd --epochs 100 --cpu-budget 3h

YOLOv5n, its SPD form, the released family, the cheap SPD form with 1x1 kernels, and a wider YOLOv5n that costs as much
as the SPD form. A data set is written NAME.yaml@SIDE: its images are made so small first that their longer side has
SIDE pixels; of NAME.yaml@SIDE:COUNT the first COUNT training images are taken. Training is that of train.py, figures
are those of val.py, of the last epoch's weights in fp32.

A finished run's figures are a file; a study that was killed, or whose budget is used up, goes on with the same command.
Several processes may work on one study. Table and plot: study.md and study.png in --out.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import yaml

from benchmarks.measuring import machine
from benchmarks.study_models import FAMILIES, FURTHER, WIDE, model_costs, write_wide_model
from benchmarks.study_report import DataSummary, markdown, plot, put_into_page
from benchmarks.study_runs import FIGURES, CpuBudget, RunResult, StudyFolder, StudyRun, ordered_runs
from utils.config.dataset_file import find_dataset_yaml
from utils.config.dataset_yaml import DatasetSpec, read_dataset_yaml
from utils.config.train_flags import TrainConfig
from utils.config.val_flags import ValConfig
from utils.dataset.demo_scenes import write_demo_scenes
from utils.dataset.detection_dataset import DetectionDataset, open_dataset
from utils.runtime.atomic_files import write_text
from utils.runtime.console_log import run_verb
from utils.user_error import UsageError
from utils.verbs.evaluate import EvaluationSetup
from utils.verbs.train import train_detector

DATA = ("bccd.yaml@160", "demo-scenes.yaml@192:120", "demo-scenes.yaml@256:120")
LATENCY_ROUNDS = 30
PARTS = ("train", "val")


@dataclass(frozen=True, slots=True)
class StudyData:
    """A data set at a low resolution."""

    yaml: str
    side: int  # pixels, longer side of an image
    most: int | None = None  # training images; None takes all

    @classmethod
    def parse(cls, text: str) -> StudyData:
        """``my.yaml@160`` or ``my.yaml@160:500``.

        Raises:
            UsageError: it is written otherwise.
        """
        match = re.fullmatch(r"(.+)@(\d+)(?::(\d+))?", text)
        if match is None or int(match[2]) < 32 or match[3] == "0":
            raise UsageError(f"--data {text}: write NAME.yaml@SIDE or NAME.yaml@SIDE:COUNT, SIDE at least 32 pixels")
        return cls(match[1], int(match[2]), int(match[3]) if match[3] else None)

    @property
    def name(self) -> str:
        return f"{Path(self.yaml).stem}-{self.side}" + (f"-{self.most}" if self.most else "")


@dataclass(frozen=True, slots=True)
class Study:
    """What is trained on what, and how."""

    folder: StudyFolder
    data: tuple[StudyData, ...]
    models: tuple[str, ...]
    seeds: tuple[int, ...]
    recipe: TrainConfig  # what every run has in common
    roots: dict[str, str]  # folder by data set, where the YAML's does not hold

    def prepare(self) -> dict[str, Path]:
        """Write low-resolution images and the wide model, unless they are there; the YAML of each data set."""
        with self.folder.alone():
            recipe = {name: getattr(self.recipe, name) for name in ("epochs", "batch_size", "optimizer", "precision")}
            self.folder.settle(recipe | {"hyp": Path(self.recipe.hyp).name})
            if WIDE in self.models:
                write_wide_model(self.folder.folder)
            return {one.name: self._written(one) for one in self.data}

    def _written(self, data: StudyData) -> Path:
        folder = self.folder.folder / "data" / data.name
        file = low_resolution_yaml(folder)
        return file if file.is_file() else write_low_resolution(self._source(data), data.side, folder, data.most)

    def _source(self, data: StudyData) -> DatasetSpec:
        """The data set as it is, from the folder that the command line names or the YAML's; the demo's is drawn."""
        file = find_dataset_yaml(data.yaml)
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        if file.stem in self.roots:
            root = str(Path(self.roots[file.stem]).expanduser().resolve())
            file = self.folder.folder / file.name
            write_text(file, yaml.safe_dump(content | {"path": root}, sort_keys=False))
        elif file.stem == "demo-scenes":
            write_demo_scenes(read_dataset_yaml(file).root)
        return read_dataset_yaml(file)

    def cfg(self, model: str) -> str:
        return str(self.folder.folder / f"{WIDE}.yaml") if model == WIDE else f"{model}.yaml"

    def runs(self) -> list[StudyRun]:
        stages = [[one for one in self.models if one in FURTHER]]
        stages.insert(0, [one for one in self.models if one not in FURTHER])
        return ordered_runs([one.name for one in self.data], stages, self.seeds)

    def do(self, run: StudyRun, dataset: Path) -> RunResult:
        """Train from scratch and evaluate the last epoch's weights."""
        start = time.process_time()
        side = next(one.side for one in self.data if one.name == run.data)
        cfg = self.cfg(run.model)
        folder = train_detector(
            replace(self.recipe, cfg=cfg, data=str(dataset), imgsz=side, seed=run.seed, name=run.name)
        )
        weights = folder / "weights" / "last.pt"
        setup = EvaluationSetup.of(ValConfig(data=str(dataset), imgsz=side, workers=0))
        coco = setup.evaluate(setup.detector([str(weights)])).coco
        shutil.rmtree(folder / "weights")  # a study of many runs would fill the disk
        return RunResult(run, {key: getattr(coco, key) for key in FIGURES}, time.process_time() - start)

    def go_on(self, budget: CpuBudget) -> None:
        """Every run that is neither finished nor in another process's hands, while the budget lasts."""
        datasets = self.prepare()
        for run in self.runs():
            with self.folder.claimed(run) as mine:
                if not mine:
                    continue
                if not budget.admits(run, self.folder.results()):
                    print(f"the budget ends before {run.name}; a larger --cpu-budget goes on from here")
                    return
                print(f"{run.name} begins", flush=True)
                result = self.do(run, datasets[run.data])
                self.folder.keep(result)
                figures = ", ".join(f"{key} {value:.3f}" for key, value in result.figures.items())
                print(f"{run.name}: {figures}, {result.cpu_seconds:.0f} s CPU", flush=True)

    def report(self, page: Path | None) -> None:
        """Measure what the models cost, and write ``study.md`` and ``study.png``, and both into a page of docs."""
        datasets = self.prepare()
        finished = self.folder.results()
        summaries = []
        for data in self.data:
            classes = read_dataset_yaml(datasets[data.name]).class_count
            costs = model_costs({one: self.cfg(one) for one in self.models}, classes, data.side, LATENCY_ROUNDS)
            summaries.append(DataSummary.of(data.name, finished, costs))
        hours = sum(one.cpu_seconds for one in finished) / 3600
        recipe = self.recipe
        trained = f"{recipe.epochs} epochs, batch {recipe.batch_size}, {recipe.optimizer}, `{Path(recipe.hyp).name}`"
        note = (
            f"{len(finished)} runs from scratch, {trained}, {recipe.precision}; evaluated in fp32; {hours:.1f} h CPU. "
            f"Latency: {machine()}, batch 1, fp32, fused, without NMS, all models in turn."
        )
        text = markdown(summaries, note)
        write_text(self.folder.folder / "study.md", text)
        plot(self.folder.folder / "study.png", summaries)
        if page is not None:
            image = page.with_name(f"{page.stem}-study.png")
            put_into_page(page, f"![Figures over cost, and differences]({image.name})\n\n{text}")
            plot(image, summaries)
        print(f"table and plot: {self.folder.folder / 'study.md'}, {self.folder.folder / 'study.png'}")


def write_low_resolution(spec: DatasetSpec, side: int, folder: Path, most: int | None = None) -> Path:
    """Write the train and val parts of ``spec`` under ``folder`` in YOLO format; the dataset YAML's path.

    Of the training images at most the first ``most`` are written.

    No image is longer than ``side`` pixels afterwards; each new pixel is the mean of those it covers, as in a camera
    with fewer of them. Images are PNG, so that nothing else is lost.
    """
    file = low_resolution_yaml(folder)
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    for part in PARTS:
        sources = open_dataset(spec.split(part), spec.names, title=part)
        count = min(len(sources), most or len(sources)) if part == "train" else len(sources)
        for number in range(count):
            _write_image(sources, number, side, unfinished, part)
    content: dict[str, object] = {"path": str(folder.resolve()), **{part: f"images/{part}" for part in PARTS}}
    text = yaml.safe_dump(content | {"names": dict(enumerate(spec.names))}, sort_keys=False)
    (unfinished / file.name).write_text(text, encoding="utf-8")
    unfinished.rename(folder)
    return file


def low_resolution_yaml(folder: Path) -> Path:
    """Where the dataset YAML lies; it is there when the data set is whole."""
    return folder / f"{folder.name}.yaml"


def low_resolution_size(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width of an image whose longer side is to have at most ``side`` pixels."""
    scale = min(side / max(height, width), 1.0)
    return max(round(height * scale), 1), max(round(width * scale), 1)


def _write_image(dataset: DetectionDataset, number: int, side: int, root: Path, part: str) -> None:
    images, labels = root / "images" / part, root / "labels" / part
    images.mkdir(parents=True, exist_ok=True)
    labels.mkdir(parents=True, exist_ok=True)
    image = dataset.source_image(number)
    height, width = low_resolution_size(image.shape[0], image.shape[1], side)
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(images / f"{number:05d}.png"), cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
    (labels / f"{number:05d}.txt").write_text("".join(_label_rows(dataset, number)), encoding="utf-8")


def _label_rows(images: DetectionDataset, number: int) -> Sequence[str]:
    """The rows ``class cx cy w h`` of an image, fractions of it: the same whatever its size."""
    index = images.index
    start, end = int(index.row_ends[number - 1]) if number else 0, int(index.row_ends[number])
    return [f"{int(row[0])} " + " ".join(f"{value:.6f}" for value in row[1:]) + "\n" for row in index.rows[start:end]]


def flags_of(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks.small_object_study",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--cpu-budget", help="CPU time of all runs together, as in 90m or 2.5h; needed to run any")
    parser.add_argument("--report-only", action="store_true", help="write table and plot of what is finished")
    parser.add_argument("--page", type=Path, help="page of docs to write table and plot into as well")
    parser.add_argument("--data", nargs="+", default=DATA, help="data sets and sides, most wanted first")
    parser.add_argument("--root", nargs="*", default=(), help="NAME=FOLDER: where the data set of NAME.yaml lies")
    parser.add_argument("--models", nargs="+", default=(*FAMILIES, *FURTHER), help="names of files in models/")
    parser.add_argument("--seeds", nargs="+", type=int, default=(0, 1, 2))
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--hyp", default="data/hyps/hyp.demo.yaml")
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16", "fp16"), help="of training")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("runs/study"), help="folder of the study")
    return parser.parse_args(arguments)


def study_of(flags: argparse.Namespace) -> Study:
    """The study that the command line describes.

    Raises:
        UsageError: a value that cannot be.
    """
    wrong = next((text for text in flags.root if "=" not in text), None)
    if wrong is not None:
        raise UsageError(f"--root {wrong}: write NAME=FOLDER")
    recipe = TrainConfig(
        weights="",
        hyp=flags.hyp,
        epochs=flags.epochs,
        batch_size=flags.batch_size,
        optimizer="AdamW",
        precision=flags.precision,
        device=flags.device,
        workers=0,
        cache="ram",
        noval=True,
        nosave=True,
        noplots=True,
        loggers=("none",),
        project=str(flags.out / "training"),
        exist_ok=True,
    )
    return Study(
        folder=StudyFolder(flags.out),
        data=tuple(map(StudyData.parse, flags.data)),
        models=tuple(name.removesuffix(".yaml") for name in flags.models),
        seeds=tuple(flags.seeds),
        recipe=recipe,
        roots=dict(text.split("=", 1) for text in flags.root),
    )


def main() -> None:
    flags = flags_of(sys.argv[1:])
    if not flags.cpu_budget and not flags.report_only:
        raise UsageError("--cpu-budget: is needed, as in --cpu-budget 2h; or --report-only")
    study = study_of(flags)
    if not flags.report_only:
        study.go_on(CpuBudget.parse(flags.cpu_budget))
    study.report(flags.page)


if __name__ == "__main__":
    sys.exit(run_verb(main))
