"""The rows of the runner: what each measures, on which sides, at which sizes, how often."""

from __future__ import annotations

import json
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from importlib.util import find_spec
from pathlib import Path

from benchmarks import (
    classification_study,
    cost_growth,
    dataset_index,
    formats,
    large_images,
    memory_over_time,
    own_side,
    roofline,
)
from benchmarks.inputs import Times
from benchmarks.measuring import (
    COST_HEAD,
    REPOSITORY,
    AtOnce,
    Command,
    Further,
    Side,
    Table,
    Timed,
    cost_rows,
    in_child,
    measured,
    python,
)
from utils.config.detect_flags import DetectConfig
from utils.exporting.formats import FORMATS

NEEDED = object()  # the default of a flag that has to be given
Groups = dict[str, dict[str, Side]]  # sides by what they do; of each group the last side is what others are held to
PEER_SIDE = Path(__file__).parent / "peer_side.py"
COMPARED = {"peer": "", "rounds": 3, "at_once": False}
TRAINED = {"weights": NEEDED, "data": NEEDED, "img": 320, "batch_size": 16}
LIBGOMPS_TURNS = 300_000  # its default
FILES = ("weights", "data", "source")
VIDEO_SIZE = 720, 1280


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement."""

    what: str
    flags: Mapping[str, object]  # those that it takes, and their values where they are not given
    tables: Callable[[Namespace], Iterator[Table]]


def compared(groups: Callable[[Namespace, Path], Groups]) -> Callable[[Namespace], Iterator[Table]]:
    """The table of sides that run in turn; they may write into the folder that ``groups`` is given."""

    def rows(flags: Namespace) -> Iterator[tuple[str, ...]]:
        with tempfile.TemporaryDirectory() as runs:
            for what, sides in groups(flags, Path(runs)).items():
                for part, costs in measured(sides, flags.rounds, at_once=flags.at_once).items():
                    yield from cost_rows(f"{what}{part and ', '}{part}", costs)

    return lambda flags: iter([Table(COST_HEAD, rows(flags))])


def beside_peer(flags: Namespace, ours: Mapping[str, Side], peer: Callable[[Path], Side]) -> dict[str, Side]:
    """Our sides and, if there is a checkout to compare with, its own."""
    return {**ours, **({"peer": peer(Path(flags.peer).resolve())} if flags.peer else {})}


def in_peer(function: str, arguments: Mapping[str, object]) -> Callable[[Path], Side]:
    words = (PEER_SIDE, function, json.dumps(arguments))
    return lambda folder: Timed(python(*words, folder=folder))


def both(flags: Namespace, function: Callable[..., Times], **arguments: object) -> dict[str, Side]:
    """A function of ours, and the one of that name in ``peer_side.py``."""
    ours: Side = Timed(in_child(function, **arguments))
    return beside_peer(flags, {"ours": ours}, in_peer(function.__name__, arguments))


def words_of(flags: Namespace, *names: str) -> list[object]:
    """Flags of a script that runs in another folder."""
    values = {name: getattr(flags, name) for name in names}
    values |= {name: Path(values[name]).resolve() for name in names if name in FILES}
    return [word for name, value in values.items() for word in (f"--{name.replace('_', '-')}", value)]


def in_precisions(flags: Namespace, side: Callable[..., Side]) -> dict[str, Side]:
    """A script of ours in each precision, and the checkout's of the same name and flags."""
    ours = {f"ours, {precision}": side(REPOSITORY, "--precision", precision) for precision in flags.precision}
    return beside_peer(flags, ours, side)


def nms(flags: Namespace, _: Path) -> Groups:
    return {f"suppression, {flags.img} pixels": both(flags, own_side.nms, img=flags.img)}


def loss(flags: Namespace, _: Path) -> Groups:
    sizes = {"img": flags.img, "images": flags.batch_size}
    return {f"loss, {flags.img} pixels, batch {flags.batch_size}": both(flags, own_side.loss, **sizes)}


def augmentation(flags: Namespace, _: Path) -> Groups:
    sizes = {"data": str(Path(flags.data).resolve()), "img": flags.img, "samples": flags.samples}
    return {
        f"mosaic, warp, jitter, {flags.img} pixels, images from {place}, each": both(
            flags, own_side.augmentation, **sizes, place=place
        )
        for place in ("memory", "disk")
    }


def training_step(flags: Namespace, _: Path) -> Groups:
    sizes = {"img": flags.img, "images": flags.batch_size}

    def ours(cfg: str, layout: str, precision: str) -> Side:
        return Timed(in_child(own_side.training_step, cfg=cfg, layout=layout, precision=precision, **sizes))

    precisions = ("bf16", "fp32")
    released = {f"ours, {one}": ours("yolov5n-spd-released", "strided", one) for one in precisions}
    if flags.peer:
        for one in precisions:
            side = in_peer("training_step", {"cfg": flags.cfg, "precision": one, **sizes})
            released[f"peer, {one}"] = side(Path(flags.peer).resolve())
    layouts = {"SPDConv": "strided", "slices, channels_last": "slices_channels_last", "slices": "slices"}
    block = {
        f"{name}, {one}": ours("yolov5n-spd", layout, one) for name, layout in layouts.items() for one in precisions
    }
    size = f"a training step, {flags.img} pixels, batch {flags.batch_size}"
    return {f"released SPD nano, {size}": released, f"yolov5n-spd, {size}": block}


def training_overhead(flags: Namespace, runs: Path) -> Groups:
    words = [PEER_SIDE, "training_overhead", "train.py", *words_of(flags, *TRAINED, "workers"), "--noval", "--noplots"]
    words += ["--noautoanchor", "--epochs", 1, "--project", runs, *(["--cache", "ram"] if flags.cache else [])]
    ours: Side = Timed(python(*words))
    sides = beside_peer(flags, {"ours": ours}, lambda folder: Timed(python(*words, folder=folder)))
    return {f"train.py, {flags.img} pixels, batch {flags.batch_size}, a step": sides}


def training_epoch(flags: Namespace, runs: Path) -> Groups:
    words = ["train.py", *words_of(flags, *TRAINED, "workers"), "--noval", "--noplots", "--noautoanchor"]
    words += ["--project", runs]

    def side(folder: Path, *further: str) -> Side:
        short, long = (python(*words, "--epochs", count, *further, folder=folder) for count in (1, flags.epochs))
        return Further(short, long, flags.epochs - 1)

    return {f"train.py, {flags.img} pixels, batch {flags.batch_size}, an epoch": in_precisions(flags, side)}


def validation(flags: Namespace, runs: Path) -> Groups:
    words = ["val.py", *words_of(flags, *TRAINED, "workers"), "--project", runs]
    sides = in_precisions(flags, lambda folder, *further: python(*words, *further, folder=folder))
    return {f"val.py, {flags.img} pixels, batch {flags.batch_size}, whole process": sides}


def detection_start(flags: Namespace, runs: Path) -> Groups:
    words = ["detect.py", *words_of(flags, "weights", "source"), "--project", runs]
    ours: dict[str, Side] = {"ours, --help": python("detect.py", "--help"), "ours": python(*words)}
    ours["import torch, cv2"] = python("-c", "import torch, cv2")
    sides = beside_peer(flags, ours, lambda folder: python(*words, folder=folder))
    return {"detect.py on one image, whole process": sides}


def detection_video(flags: Namespace, runs: Path) -> Groups:
    short, long = (
        memory_over_time.write_video(runs / f"{count}.mp4", count, VIDEO_SIZE)
        for count in (flags.images, 2 * flags.images)
    )
    words = [*words_of(flags, "weights", "img"), "--conf", flags.conf, "--project", runs]

    def per_frame(command: Callable[[Path], Command]) -> Side:
        return Further(command(short), command(long), flags.images)

    def detect(folder: Path, *further: str) -> Side:
        return per_frame(lambda video: python("detect.py", *words, "--source", video, *further, folder=folder))

    def ultralytics(method: str, **further: str) -> Side:
        inputs = {"weights": str(Path(flags.weights).resolve()), "img": flags.img, "conf": flags.conf}
        call = {"method": method, "project": str(runs), **inputs, **further}
        return per_frame(
            lambda video: python(PEER_SIDE, "ultralytics_video", json.dumps(call | {"source": str(video)}))
        )

    ours = {"ours": detect(REPOSITORY), "ours, --nosave": detect(REPOSITORY, "--nosave")}
    if "track" in {flag.name for flag in fields(DetectConfig)}:
        ours["ours, --track"] = detect(REPOSITORY, "--track")
    if find_spec("ultralytics"):
        ours |= {f"ultralytics, {method}": ultralytics(method) for method in ("predict", "track")}
        ours["ultralytics, track by ByteTrack"] = ultralytics("track", tracker="bytetrack.yaml")
    return {f"detect.py on video of {VIDEO_SIZE[1]} x {VIDEO_SIZE[0]}, a frame": beside_peer(flags, ours, detect)}


def spinning(turns: int) -> dict[str, str]:
    """What has OpenMP's threads turn so often while they wait; those of ONNX Runtime do, or not, by the second."""
    return {"GOMP_SPINCOUNT": str(turns), "OMP_WAIT_POLICY": "active" if turns >= LIBGOMPS_TURNS else "passive"}


def shared_machine(flags: Namespace, runs: Path) -> Groups:
    """Scripts beside themselves, for each spin of the OpenMP threads; the last side is one alone that spins longest."""
    inputs = words_of(flags, "weights", "data", "img")
    scripts = {
        "val.py": ["val.py", *inputs],
        "train.py": ["train.py", *inputs, "--epochs", 1, "--workers", 1, "--noval", "--noplots", "--noautoanchor"],
        "detect.py --slice": ["detect.py", *words_of(flags, "weights", "source"), "--slice", flags.tile],
    }
    return {
        script: {
            f"{count} at once, spin {spin}": AtOnce(
                replace(python(*words, "--project", runs), environment=spinning(spin)), count
            )
            for count in sorted(flags.processes, reverse=True)
            for spin in sorted(flags.spins)
        }
        for script, words in scripts.items()
        if script.split(".")[0] in flags.only
    }


def coco_evaluation(flags: Namespace, _: Path) -> Groups:
    engines = ("hotcoco", "pycocotools")
    sides: dict[str, Side] = {
        one: Timed(in_child(own_side.coco_evaluation, images=flags.images, engine=one)) for one in engines
    }
    return {f"COCO's figures, {flags.images} images": sides}


ROWS = {
    "nms": Row("suppression at evaluation settings, 25 200 x 85, multi-label", COMPARED | {"img": 640}, compared(nms)),
    "loss": Row("loss forward and backward", COMPARED | {"img": 640, "batch_size": 16}, compared(loss)),
    "augmentation": Row(
        "a training sample: mosaic, warp, jitter, flips, of a folder of images with labels",
        COMPARED | {"data": NEEDED, "img": 640, "samples": 128},
        compared(augmentation),
    ),
    "training_step": Row(
        "forward, loss, backward, optimizer: the released SPD nano beside the SPD authors' (--peer is their checkout,"
        " --cfg its nano file), yolov5n-spd beside its block as slices",
        COMPARED | {"cfg": "models/yolov5n-spd.yaml", "img": 320, "batch_size": 16, "rounds": 2},
        compared(training_step),
    ),
    "training_overhead": Row(
        "a step of train.py outside of the network's forward and backward passes, and inside",
        COMPARED | TRAINED | {"workers": 0, "cache": False, "rounds": 1},
        compared(training_overhead),
    ),
    "training_epoch": Row(
        "an epoch of train.py after the first, and its peak memory: the difference of a long and a short run",
        COMPARED | TRAINED | {"workers": 1, "precision": ("fp32",), "epochs": 3},
        compared(training_epoch),
    ),
    "validation": Row(
        "val.py as a whole process",
        COMPARED | TRAINED | {"img": 640, "batch_size": 32, "workers": 2, "precision": ("fp32",)},
        compared(validation),
    ),
    "detection_start": Row(
        "detect.py on one image as a whole process, its --help, and the libraries alone",
        COMPARED | {"weights": NEEDED, "source": NEEDED, "rounds": 5},
        compared(detection_start),
    ),
    "detection_video": Row(
        "a frame of a video through detect.py, read, detected, drawn and written: the difference of a long and a short"
        " one; beside ultralytics' predict and track if that package is installed, and a checkout that has a detect.py",
        COMPARED | {"weights": NEEDED, "img": 640, "conf": 0.25, "images": 100},
        compared(detection_video),
    ),
    "shared_machine": Row(
        "val.py, train.py and detect.py --slice alone and beside themselves, for turns of the OpenMP threads' waiting"
        " loop, of which 300000 is libgomp's own number; with an .onnx file ONNX Runtime's threads turn at that one",
        {"weights": NEEDED, "data": NEEDED, "source": NEEDED, "img": 320, "tile": 160, "rounds": 3, "at_once": False}
        | {"only": ("val", "train", "detect"), "spins": (1000, 3000, 10_000, LIBGOMPS_TURNS), "processes": (1, 2, 3)},
        compared(shared_machine),
    ),
    "coco_evaluation": Row(
        "COCO's twelve figures on a synthetic set of val2017's size, hotcoco beside pycocotools, held to be equal",
        {"images": 5000, "rounds": 1, "at_once": False},
        compared(coco_evaluation),
    ),
    "roofline": Row("share of the machine's matrix-multiply peak", {"rounds": 3, "share": 1.0}, roofline.tables),
    "dataset_index": Row(
        "the label index at COCO's scale", {"images": 118_000, "boxes": 860_000}, dataset_index.tables
    ),
    "cost_growth": Row(
        "how time and memory grow with image size, batch, objects and images",
        {"only": tuple(cost_growth.SERIES), "share": 1.0, "plots": ""},
        cost_growth.tables,
    ),
    "memory_over_time": Row(
        "whether long runs of detect.py, val.py and train.py grow",
        {"only": tuple(memory_over_time.RUNS), "share": 1.0},
        memory_over_time.tables,
    ),
    "formats": Row(
        "every form of one detector on the same images: difference, size, latency, AP, AP_S; --cfg converts it first",
        {"weights": NEEDED, "cfg": "", "data": NEEDED, "img": 640, "threads": (2,), "rounds": 15, "no_ap": False}
        | {"only": tuple(FORMATS), "folder": ""},
        formats.tables,
    ),
    "slicing": Row(
        "small objects in large images: whole, in our tiles, in sahi's",
        {"weights": NEEDED, "folder": "datasets/large-scenes", "images": 12, "conf": 0.01, "batch_size": 8},
        large_images.slicing,
    ),
    "tiled_training": Row(
        "training on tiles of large images beside training on the images shrunk, at the same cost",
        {"weights": "", "folder": "", "train": 12, "val": 4, "tile": 320, "shrunk": (640, 1280), "epochs": 4}
        | {"precision": "fp32", "at_once": False},
        large_images.tiled_training,
    ),
    "classification_study": Row(
        "top-1 of an SPD ResNet beside the ResNet that it comes from, over seeds",
        {"data": NEEDED, "models": ("resnet18-spd", "resnet18"), "seeds": (0, 1, 2), "img": 32, "epochs": 15}
        | {"hyp": "hyp.classify-small-set.yaml", "precision": "fp32", "workers": 0}
        | {"project": "runs/classification-study"},
        classification_study.tables,
    ),
}
