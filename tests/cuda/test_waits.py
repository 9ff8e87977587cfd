"""How often the host waits for the GPU, and processes for each other: below the limits of one table."""

from __future__ import annotations

import pytest

from tests.cuda.pretended import PHASES, Noted, PretendedGpu, Waits, named_function, needs_tool, run_alone
from tests.cuda.workplace import CLASSIFIED, EVALUATED, TRAIN, TRAINED

pytestmark = [pytest.mark.slow, needs_tool]
LIMITS = {  # waits of one
    "training step, fp16": 1,
    "training step, bf16": 1,
    "training step without anchors, bf16": 2,
    "training step of a classifier, fp16": 1,
    "image of val.py": 1,
    "batch of val.py": 3,
    "image of an epoch's evaluation": 1,
    "batch of an epoch's evaluation": 3,  # with the loss
    "image of val.py --slice, 2 tiles": 13,
    "frame of detect.py": 4,
    "frame of detect.py --half": 4,
    "batch of classify/val.py": 1,
    "image of classify/predict.py": 1,
}
# Of two processes: in a step, beside its gradients, and in a run of one epoch. 96 broadcasts are those of the tool's
# stand-in for DDP.
MEETINGS = {"all_reduce in train": 1, "broadcast": 100}


def assert_within(waits: Waits, unit: str) -> None:
    assert waits.total <= LIMITS[unit], f"{unit}: {waits}\nmore than {LIMITS[unit]}"


@pytest.mark.parametrize(
    ("model", "precision", "unit"),
    [
        ("yolov5n", "fp16", "training step, fp16"),
        ("yolov5n", "bf16", "training step, bf16"),
        ("yolov5n-u", "bf16", "training step without anchors, bf16"),
    ],
)
def test_training_step(gpu: PretendedGpu, model: str, precision: str, unit: str) -> None:
    flags = ("--weights", "", "--cfg", model, *TRAIN, "--noval", "--batch-size", 8, "--precision", precision)
    short, long = (gpu.run("train.py", "--data", f"t{count}.yaml", *flags) for count in TRAINED)
    steps = (TRAINED[1] - TRAINED[0]) // 8
    assert_within(Waits.between(short, long, steps, {"train"}), unit)


def test_evaluation(gpu: PretendedGpu) -> None:
    def evaluated(count: int, batch: int) -> Noted:
        flags = ("--weights", "small.pt", "--imgsz", 64, "--workers", 0, "--device", 0)
        return gpu.run("val.py", "--data", f"v{count}.yaml", "--batch-size", batch, *flags)

    few, many = EVALUATED
    whole = evaluated(many, 8)
    batch = Waits.between(whole, evaluated(many, 2), many // 2 - many // 8)
    images = Waits.between(evaluated(few, 8), whole, 1)
    assert_within(batch, "batch of val.py")
    assert_within(images.per(many - few, without=batch, times=(many - few) // 8), "image of val.py")


def test_evaluation_of_an_epoch(gpu: PretendedGpu) -> None:
    """Two evaluations a run: of the epoch, and of the best one at the end. Batches are twice the training's."""

    def trained(count: int, batch: int) -> Noted:
        return gpu.run("train.py", "--data", f"v{count}.yaml", "--weights", "small.pt", *TRAIN, "--batch-size", batch)

    few, many = EVALUATED
    whole = trained(many, 4)
    batch = Waits.between(whole, trained(many, 2), 2 * (many // 4 - many // 8), {"val"})
    images = Waits.between(trained(few, 4), whole, 2, {"val"})
    assert_within(batch, "batch of an epoch's evaluation")
    assert_within(images.per(many - few, without=batch, times=(many - few) // 8), "image of an epoch's evaluation")


@pytest.mark.parametrize(
    ("unit", "words"),
    [
        ("frame of detect.py", "detect.py --source frames{}.txt --imgsz 64"),
        ("frame of detect.py --half", "detect.py --source frames{}.txt --imgsz 64 --half"),
        ("image of val.py --slice, 2 tiles", "val.py --data v{}.yaml --imgsz 64 --slice 64 --workers 0"),
    ],
)
def test_frame(gpu: PretendedGpu, unit: str, words: str) -> None:
    flags = ("--weights", "small.pt", "--device", 0)
    short, long = (gpu.run(*words.format(count).split(), *flags) for count in EVALUATED)
    assert_within(Waits.between(short, long, EVALUATED[1] - EVALUATED[0]), unit)


def test_classifier(gpu: PretendedGpu) -> None:
    size = ("--imgsz", 32, "--device", 0)
    few, many = CLASSIFIED  # images of each of three classes
    flags = ("--model", "yolov5n-cls", *size, "--workers", 0, "--batch-size", 3, "--epochs", 1, "--noplots")
    short, long = (
        gpu.run("classify/train.py", "--data", f"c{count}", *flags, "--name", f"c{count}") for count in CLASSIFIED
    )
    assert_within(Waits.between(short, long, many - few, {"train"}), "training step of a classifier, fp16")
    weights = ("--weights", f"runs/train-cls/c{few}/weights/last.pt", *size)
    short, long = (
        gpu.run("classify/val.py", "--data", f"c{count}", *weights, "--workers", 0, "--batch-size", 3)
        for count in CLASSIFIED
    )
    assert_within(Waits.between(short, long, many - few), "batch of classify/val.py")
    short, long = (
        gpu.run("classify/predict.py", "--source", f"classified{count}.txt", *weights) for count in CLASSIFIED
    )
    assert_within(Waits.between(short, long, 3 * (many - few)), "image of classify/predict.py")


def test_two_processes_with_a_gpu_each(gpu: PretendedGpu) -> None:
    flags = ("--weights", "small.pt", "--data", "t16.yaml", *TRAIN, "--device", "0,1", "--precision", "fp16")
    for run in run_alone(gpu.folder, "train.py", *flags, "--name", "two", processes=2):
        met = run.checked().meetings()
        steps = TRAINED[0] // 4
        assert 0 < met["all_reduce in train"] <= steps * MEETINGS["all_reduce in train"], met
        assert 0 < sum(n for kind, n in met.items() if kind.startswith("broadcast")) <= MEETINGS["broadcast"], met


def test_a_planted_wait_is_counted(gpu: PretendedGpu) -> None:
    def waits(script: str, *change: str) -> Waits:
        short, long = (
            gpu.run(script, *change, "--data", f"t{count}.yaml", "--weights", "small.pt", *TRAIN, "--noval")
            for count in TRAINED
        )
        return Waits.between(short, long, (TRAINED[1] - TRAINED[0]) // 4, {"train"})

    planted = waits("tests/cuda/altered_train.py", "a wait for the device")
    assert planted.total == pytest.approx(waits("train.py").total + 1, abs=0.26)
    assert any("altered_train.py" in line and share == 1 for line, share in planted.lines.items()), planted


def test_waits_by_hand() -> None:
    def noted(**counts: int) -> Noted:
        events = {("val", f"sync: {line}", "a.py:1"): count for line, count in counts.items()}
        return Noted("", 0, "", events | {("drawing", "sync: item", "b.py:1"): 100, ("val", "pin", "c.py:2"): 100})

    batch = Waits.between(noted(item=5), noted(item=9, nonzero=8), 4)
    assert (dict(batch.lines), batch.total) == ({"a.py:1  item": 1, "a.py:1  nonzero": 2}, 3)
    assert batch.per(2, without=Waits({"a.py:1  item": 0.25}), times=2).total == (1 - 0.5 + 2) / 2
    assert Waits.between(noted(), noted(item=3), 1, {"train"}).total == 0


@pytest.mark.parametrize("place", PHASES)
def test_what_names_a_phase_is_there(place: str) -> None:
    assert callable(named_function(place))
