"""Flags from dataclasses: YOLOv5's spellings and defaults, prefixes, ranges, and one clear line for a mistake."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from utils.config.command_line import as_command, flag, parse_command_line
from utils.config.detect_flags import DetectConfig
from utils.config.export_flags import ExportConfig
from utils.config.shared_flags import square_or_rectangle
from utils.config.train_flags import TrainConfig
from utils.config.val_flags import ValConfig
from utils.user_error import UsageError, typed


@dataclass(frozen=True, slots=True, kw_only=True)
class Small:
    weights: str = flag("a.pt", "weights")
    batch_size: int = flag(16, "batch", at_least=1)
    conf_thres: float = flag(0.25, "score", at_least=0, at_most=1)
    sizes: tuple[int, ...] = flag((640,), "sizes", aliases=("--img",), max_values=2)
    classes: tuple[int, ...] | None = flag(None, "classes")
    resume: bool | str = flag(False, "resume", lone_value=True)
    nosave: bool = flag(False, "nosave")
    lines: tuple[str, ...] = flag((), "lines", repeatable=True)


def parse(*argv: str) -> Small:
    return parse_command_line(Small, argv, prog="small.py", description="", refused={"--bucket": "use a copy"})


def test_a_repeatable_flag_takes_further_values_another_takes_the_last() -> None:
    config = parse("--lines", "a", "b", "--sizes", "1", "--lines", "c", "--sizes", "2")
    assert (config.lines, config.sizes) == (("a", "b", "c"), (2,))
    assert as_command(config, "small.py") == "python small.py --sizes 2 --lines a b c"


def test_defaults_and_values() -> None:
    assert parse() == Small()
    config = parse("--weights", "b.pt", "--batch-size", "4", "--img", "320", "480", "--classes", "0", "2", "--nosave")
    assert config == Small(weights="b.pt", batch_size=4, sizes=(320, 480), classes=(0, 2), nosave=True)


def test_prefixes_underscores_and_equals_signs() -> None:
    assert parse("--batch", "3").batch_size == 3
    assert parse("--conf", "0.5").conf_thres == 0.5
    assert parse("--conf_thres=0.5").conf_thres == 0.5


def test_a_value_that_may_be_left_out() -> None:
    assert parse("--resume").resume is True
    assert parse("--resume", "last.pt").resume == "last.pt"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--batchsize", "4"), ("unknown flag --batchsize", "--batch-size")),
        (("--batch-size", "0"), ("--batch-size 0", "at least 1")),
        (("--conf-thres", "1.5"), ("--conf-thres 1.5", "at most 1")),
        (("--conf-thres", "nan"), ("nan", "finite")),
        (("--batch-size", "many"), ("--batch-size", "many")),
        (("--img", "1", "2", "3"), ("--sizes 1 2 3", "at most 2")),
        (("image.jpg",), ("unexpected argument 'image.jpg'",)),
        (("--bucket", "x"), ("--bucket", "use a copy")),
        (("--weights",), ("--weights",)),
    ],
)
def test_a_mistake_is_one_line_that_names_it(argv: tuple[str, ...], words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as caught:
        parse(*argv)
    message = str(caught.value)
    assert message.startswith("small.py: ") and "\n" not in message
    assert all(word in message for word in words)
    assert caught.value.exit_code == 2


# Flag -> default, as YOLOv5 v7.0 has them.
IMGSZ = "imgsz"
YOLOV5_DEFAULTS: dict[type, dict[str, object]] = {
    TrainConfig: {
        "weights": "yolov5s.pt",
        "cfg": "",
        "data": "data/coco128.yaml",
        "hyp": "data/hyps/hyp.scratch-low.yaml",
        "epochs": 100,
        "batch_size": 16,
        "imgsz": 640,
        "device": "",
        "optimizer": "SGD",
        "seed": 0,
        "workers": 8,
        "project": "runs/train",
        "name": "exp",
        "exist_ok": False,
        "noautoanchor": False,
        "nosave": False,
        "noval": False,
        "resume": False,
        "patience": 100,
        "noplots": False,
    },
    ValConfig: {
        "weights": ("yolov5s.pt",),
        "data": "data/coco128.yaml",
        "batch_size": 32,
        "imgsz": 640,
        "conf_thres": 0.001,
        "iou_thres": 0.6,
        "max_det": 300,
        "device": "",
        "workers": 8,
        "verbose": False,
        "save_json": False,
        "save_txt": False,
        "save_conf": False,
        "project": "runs/val",
        "name": "exp",
        "exist_ok": False,
    },
    DetectConfig: {
        "weights": ("yolov5s.pt",),
        "source": "data/images",
        "imgsz": (640,),
        "conf_thres": 0.25,
        "iou_thres": 0.45,
        "max_det": 1000,
        "device": "",
        "save_txt": False,
        "save_conf": False,
        "save_crop": False,
        "classes": None,
        "agnostic_nms": False,
        "project": "runs/detect",
        "name": "exp",
        "exist_ok": False,
    },
    ExportConfig: {"weights": "yolov5s.pt", "imgsz": (640, 640), "batch_size": 1, "include": ("torchscript",)},
}


@pytest.mark.parametrize("config_type", list(YOLOV5_DEFAULTS), ids=lambda t: t.__name__)
def test_yolov5_flags_and_defaults(config_type: type) -> None:
    config: object = parse_command_line(config_type, [], prog="verb.py", description="")
    expected = YOLOV5_DEFAULTS[config_type]
    assert {name: getattr(config, name) for name in expected} == expected


@pytest.mark.parametrize("config_type", list(YOLOV5_DEFAULTS), ids=lambda t: t.__name__)
def test_all_spellings_of_the_image_size(config_type: type) -> None:
    for spelling in ("--imgsz", "--img", "--img-size"):
        config: object = parse_command_line(config_type, [spelling, "320"], prog="verb.py", description="")
        assert getattr(config, IMGSZ) in (320, (320,))


def test_one_side_or_height_and_width() -> None:
    assert square_or_rectangle((640,)) == (640, 640)
    assert square_or_rectangle((320, 480)) == (320, 480)


def test_a_word_in_place_of_a_number() -> None:
    def parse(value: str) -> object:
        return parse_command_line(DetectConfig, ["--conf", value], prog="detect.py", description="").conf_thres

    assert (parse("auto"), parse("0.5"), parse("1")) == ("auto", 0.5, 1.0)
    for value, line in (("best", "'best' is neither a number nor auto"), ("1.5", "must be at most 1")):
        with pytest.raises(UsageError, match=line):
            parse(value)


@pytest.mark.parametrize(
    ("script", "word"),
    [
        ("val.py", "val"),
        ("python val.py", "val"),
        ("python classify/train.py", "classify train"),
        ("python -m utils.dataset.split", "split"),
    ],
)
def test_messages_name_the_program_as_it_was_called(monkeypatch: pytest.MonkeyPatch, script: str, word: str) -> None:
    assert typed(script) == script
    monkeypatch.setattr("sys.argv", ["yolov5-spd train", "--img", "320"])
    assert typed(script) == f"yolov5-spd {word}"


def test_help_mistakes_and_the_command_of_a_report_name_the_console_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert as_command(Small(batch_size=4), "val.py") == "python val.py --batch-size 4"
    monkeypatch.setattr("sys.argv", ["yolov5-spd val"])
    assert as_command(Small(batch_size=4), "val.py") == "yolov5-spd val --batch-size 4"
    with pytest.raises(UsageError, match=r"^yolov5-spd val: unknown flag --none"):
        parse_command_line(Small, ["--none"], prog="val.py", description="")
    with pytest.raises(SystemExit):
        parse_command_line(Small, ["--help"], prog="val.py", description="python val.py --weights a.pt")
    shown = capsys.readouterr().out
    assert shown.startswith("usage: yolov5-spd val [-h]") and "\nyolov5-spd val --weights a.pt\n" in shown
    assert "val.py" not in shown
