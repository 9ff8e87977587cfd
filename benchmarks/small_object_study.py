"""Which detector finds small objects best at equal cost: models trained alike on data of small objects, over seeds.

    python -m benchmarks.small_object_study --cpu-budget 8h
    python -m benchmarks.small_object_study --models yolov5n yolov5n-u wide-as-yolov5n-u --part val --cpu-budget 2h
    python -m benchmarks.small_object_study --data my.yaml@320 --starts yolov5n.pt --steps 3000 --cpu-budget 3h

A data set is written NAME.yaml@SIDE: its images are made so small first that their longer side has SIDE pixels; of
NAME.yaml@SIDE:COUNT the first COUNT training images are taken. A model is the name of a file in models/; wide-as-MODEL
is a YOLOv5 with so many channels that it takes as many operations as MODEL; MODEL+nwd=0.5+close_mosaic=5 changes the
recipe. Training is that of train.py, figures are those of val.py, of the last epoch's weights in fp32. Choose models
and settings by --part val; --part test is for the report.

A finished run's figures are a file; a study that was killed, or whose budget is used up, goes on with the same command.
Several processes may work on one study. Table and plot: study.md and study.png in --out.
"""

from __future__ import annotations

import argparse
import math
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import yaml

from benchmarks.measuring import machine
from benchmarks.study_data import StudyData, low_resolution_yaml, write_low_resolution
from benchmarks.study_models import WIDE_AS, Variant, costs_of_variants, write_wide_model
from benchmarks.study_report import ArenaSummary, markdown, plot, put_into_page
from benchmarks.study_runs import (
    FIGURES,
    HELD_BACK,
    RANDOM,
    CpuBudget,
    RunResult,
    StudyFolder,
    StudyRun,
    ordered_runs,
)
from utils.config.dataset_file import find_dataset_yaml
from utils.config.dataset_yaml import DatasetSpec, read_dataset_yaml
from utils.config.hyperparameters import find_hyperparameters
from utils.config.train_flags import TrainConfig
from utils.config.val_flags import ValConfig
from utils.dataset.demo_scenes import write_demo_scenes
from utils.runtime.atomic_files import write_text
from utils.runtime.console_log import run_verb
from utils.user_error import UsageError
from utils.verbs.evaluate import EvaluationSetup
from utils.verbs.train import train_detector

DATA = ("bccd.yaml@160", "tree-crowns.yaml@96")
MODELS = ("yolov5n", "yolov5n-small", "yolov5n-u", "wide-as-yolov5n-u", "yolov5n-spd", "yolov5n-p234")
LATENCY_ROUNDS = 30
LATENCY_THREADS = 2


@dataclass(frozen=True, slots=True)
class Study:
    """What is trained on what, and how."""

    folder: StudyFolder
    data: tuple[StudyData, ...]
    starts: tuple[str, ...]  # RANDOM or files of weights
    models: tuple[str, ...]  # each as `Variant` reads it
    seeds: tuple[int, ...]
    steps: int  # of the optimizer, of every run
    recipe: TrainConfig  # what every run has in common
    roots: dict[str, str]  # folder by data set, where the YAML's does not hold

    def prepare(self) -> dict[str, Path]:
        """Write low-resolution images and the wide model, unless they are there; the YAML of each data set."""
        with self.folder.alone():
            recipe = {name: getattr(self.recipe, name) for name in ("batch_size", "optimizer", "precision")}
            self.folder.settle(recipe | {"steps": self.steps, "hyp": Path(self.recipe.hyp).name})
            for model in {Variant.parse(text).model for text in self.models}:
                if model.startswith(WIDE_AS):
                    write_wide_model(self.folder.folder, model)
            return {one.name: self._written(one) for one in self.data}

    def _written(self, data: StudyData) -> Path:
        folder = self.folder.folder / "data" / data.name
        file = low_resolution_yaml(folder)
        return file if file.is_file() else write_low_resolution(self._source(data), data, folder)

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
        return str(self.folder.folder / f"{model}.yaml") if model.startswith(WIDE_AS) else f"{model}.yaml"

    def runs(self) -> list[StudyRun]:
        return ordered_runs([one.name for one in self.data], self.starts, self.models, self.seeds)

    def do(self, run: StudyRun, dataset: Path) -> RunResult:
        """Train and evaluate the last epoch's weights."""
        start = time.process_time()
        side = next(one.side for one in self.data if one.name == run.data)
        variant = Variant.parse(run.model)
        weights = "" if run.start == RANDOM else run.start
        own = replace(self.recipe, cfg=self.cfg(variant.model), weights=weights, data=str(dataset), imgsz=side)
        own = replace(own, epochs=self._epochs(dataset), seed=run.seed, name=run.name, hyp=self._hyp(variant, run))
        own = replace(own, **variant.flags)
        folder = train_detector(own)
        figures = {}
        for part in HELD_BACK:
            setup = EvaluationSetup.of(ValConfig(data=str(dataset), imgsz=side, workers=0, task=part))
            coco = setup.evaluate(setup.detector([str(folder / "weights" / "last.pt")])).coco
            figures[part] = {key: getattr(coco, key) for key in FIGURES}
        shutil.rmtree(folder / "weights")  # a study of many runs would fill the disk
        return RunResult(run, figures, time.process_time() - start)

    def _epochs(self, dataset: Path) -> int:
        """As many as come nearest to the steps: small data sets are gone through more often."""
        folder = read_dataset_yaml(dataset).train[0]
        batches = math.ceil(sum(1 for _ in folder.iterdir()) / self.recipe.batch_size)
        return max(1, round(self.steps / batches))

    def _hyp(self, variant: Variant, run: StudyRun) -> str:
        """The recipe's hyperparameters, in a file of their own where the variant changes some."""
        if not variant.hyperparameters:
            return self.recipe.hyp
        known = yaml.safe_load(find_hyperparameters(self.recipe.hyp).read_text(encoding="utf-8"))
        file = self.folder.folder / f"{run.name}.hyp.yaml"
        write_text(file, yaml.safe_dump(known | dict(variant.hyperparameters), sort_keys=False))
        return str(file)

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
                figures = ", ".join(f"{key} {value:.3f}" for key, value in result.figures["val"].items())
                print(f"{run.name}: val {figures}, {result.cpu_seconds:.0f} s CPU", flush=True)

    def report(self, part: str, page: Path | None) -> None:
        """Measure what the models cost, and write ``study.md`` and ``study.png``, and both into a page of docs."""
        datasets = self.prepare()
        finished = self.folder.results()
        torch.set_num_threads(LATENCY_THREADS)
        cfgs = {model: self.cfg(model) for model in (Variant.parse(text).model for text in self.models)}
        summaries = []
        for data in self.data:
            classes = read_dataset_yaml(datasets[data.name]).class_count
            costs = costs_of_variants(self.models, cfgs, classes, data.side, LATENCY_ROUNDS)
            summaries += [ArenaSummary.of((data.name, start), part, finished, costs) for start in self.starts]
        hours = sum(one.cpu_seconds for one in finished) / 3600
        recipe = self.recipe
        trained = f"{self.steps} steps, batch {recipe.batch_size}, {recipe.optimizer}, `{Path(recipe.hyp).name}`"
        note = (
            f"{len(finished)} runs, {trained}, {recipe.precision}; evaluated in fp32; {hours:.1f} h CPU. Latency: "
            f"{machine()}, batch 1, fp32, fused, cells above a score of 0.25 decoded, without NMS, in turn. "
            "Training: CPU time of a run."
        )
        text = markdown(summaries, note)
        write_text(self.folder.folder / "study.md", text)
        plot(self.folder.folder / "study.png", summaries)
        if page is not None:
            image = page.with_name(f"{page.stem}-study.png")
            put_into_page(page, f"![Figures over cost, and differences]({image.name})\n\n{text}")
            plot(image, summaries)
        print(f"table and plot: {self.folder.folder / 'study.md'}, {self.folder.folder / 'study.png'}")


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
    parser.add_argument("--models", nargs="+", default=MODELS, help="models, see above")
    parser.add_argument("--starts", nargs="+", default=(RANDOM,), help=f"{RANDOM}, or files of weights")
    parser.add_argument("--part", default="test", choices=HELD_BACK, help="part whose figures the table shows")
    parser.add_argument("--seeds", nargs="+", type=int, default=(0, 1, 2, 3, 4))
    parser.add_argument("--steps", type=int, default=780, help="optimizer steps of each run; 30 epochs of BCCD")
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
    data = tuple(map(StudyData.parse, flags.data))
    names = [one.name for one in data]
    doubled = next((one for place, one in enumerate(data) if one.name in names[:place]), None)
    if doubled is not None:
        raise UsageError(f"--data {doubled.yaml}: {doubled.name} is there already; name the file otherwise")
    recipe = TrainConfig(
        weights="",
        hyp=flags.hyp,
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
    for text in flags.models:
        Variant.parse(text)
    for name in ("steps", "batch_size"):
        if getattr(flags, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')} {getattr(flags, name)}: must be 1 or more")
    return Study(
        folder=StudyFolder(flags.out),
        data=data,
        starts=tuple(flags.starts),
        models=tuple(name.removesuffix(".yaml") for name in flags.models),
        seeds=tuple(flags.seeds),
        steps=flags.steps,
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
    study.report(flags.part, flags.page)


if __name__ == "__main__":
    sys.exit(run_verb(main))
