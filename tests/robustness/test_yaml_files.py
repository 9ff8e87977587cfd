"""Dataset, hyperparameter and architecture YAMLs that are missing, wrong, or meant to run something."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models.architecture import find_architecture
from tests.dataset.images import write_image
from tests.robustness.running import Refusal, succeeds, write

pytestmark = pytest.mark.slow


def dataset(case: str, text: str | bytes, line: str, code: int = 1) -> Refusal:
    files = write("d.yaml", text)
    return Refusal("Dataset YAML", case, "val --weights {weights} --data d.yaml", line, code, files)


NAMES = "names: [a, b, c]\n"
SPLITS = "train: .\nval: .\n"


def two_classes_and_an_image(folder: Path) -> None:
    (folder / "d.yaml").write_text(SPLITS + "names: [a, b]\n")
    write_image(folder / "a.png", np.zeros((32, 32, 3), np.uint8))


DATASETS = (
    Refusal("Dataset YAML", "missing file", "train --weights {weights} --data none.yaml", "none.yaml: no such dataset"),
    Refusal("Dataset YAML", "missing name", "train --weights {weights} --data ''", "no such dataset YAML"),
    Refusal("Dataset YAML", "a folder", "val --weights {weights} --data .", "no such dataset YAML"),
    dataset("empty file", "", "a dataset YAML is a table of keys"),
    dataset("a list", "- train\n- val\n", "a dataset YAML is a table of keys"),
    dataset("one word", "hello", "a dataset YAML is a table of keys"),
    dataset("an image called .yaml", b"\x89PNG\r\n\x1a\n\x00\x00", "d.yaml:"),
    dataset("text in UTF-16", "names: [ä]".encode("utf-16"), "d.yaml:"),
    dataset("broken syntax", SPLITS + "names: [a, b\n", "d.yaml: line 4: not valid YAML"),
    dataset("tabs", "train:\n\t- x\n", "d.yaml: line 2: not valid YAML"),
    dataset("no train", "val: .\n" + NAMES, "the key 'train' is missing"),
    dataset("no val", "train: .\n" + NAMES, "the key 'val' is missing"),
    dataset("no names", SPLITS + "nc: 3\n", "the key 'names' is missing"),
    dataset("a split that is not there", "train: none\nval: none\n" + NAMES, "none does not exist"),
    dataset("an empty split", "train: []\nval: .\n" + NAMES, "train: the list is empty"),
    dataset("a split that is a number", "train: 5\nval: .\n" + NAMES, "train: 5 is not a folder"),
    dataset("a split with a NUL", 'train: "a\\0b"\nval: .\n' + NAMES, "is not a folder"),
    dataset("a path too long for a name", f"train: {'x' * 300}\nval: .\n" + NAMES, "File name too long"),
    dataset("a path that is a table", "path: {a: 1}\n" + SPLITS + NAMES, "path: {'a': 1} is not a folder's name"),
    dataset("nc that disagrees", SPLITS + NAMES + "nc: 4\n", "nc is 4, but names has 3 entries"),
    dataset("nc that is a word", SPLITS + NAMES + "nc: three\n", "nc: 'three' is not a number of classes"),
    dataset("names that are a number", SPLITS + "names: 3\n", "names: has to be a list of names"),
    dataset("no names in the list", SPLITS + "names: []\n", "names: has to be a list of names"),
    dataset("class numbers with a gap", SPLITS + "names: {0: a, 2: b}\n", "the class numbers have to be 0 to 1"),
    dataset("class numbers that are words", SPLITS + "names: {x: a}\n", "the class numbers have to be 0 to 0"),
    dataset("a name that YAML reads as a truth value", SPLITS + "names: [yes, b, c]\n", "put it in quotes"),
    dataset("a name that is a list", SPLITS + "names: [[a], b, c]\n", "class 0 is ['a'], not a name"),
    dataset("a python tag", SPLITS + "names: !!python/object/apply:os.system ['touch ran']\n", "not valid YAML"),
    dataset("a python tag in a key nobody reads", SPLITS + NAMES + "x: !!python/name:os.system\n", "not valid YAML"),
    dataset(
        "download: that is a program", SPLITS + NAMES + "download: import os; os.system('touch ran')\n", "never runs"
    ),
    dataset("download: that is a shell line", SPLITS + NAMES + "download: bash get.sh\n", "takes URLs only"),
    dataset("nested too deeply", "x: " + "[" * 1000, "nested too deeply"),
    dataset("a date that is none", SPLITS + NAMES + "x: 2024-99-99\n", "not valid YAML"),
    dataset("keys that are no words", "1: 2\n" + SPLITS + NAMES, "a dataset YAML is a table of keys"),
    Refusal(
        "Dataset YAML",
        "other classes than the model",
        "val --weights {weights} --data d.yaml",
        "has 3 classes, but d.yaml names 2",
        1,
        two_classes_and_an_image,
    ),
    dataset("a split without images", SPLITS + NAMES, "no images found"),
    Refusal(
        "Dataset YAML",
        "--task test without a test: part",
        "val --weights {weights} --data {data} --task test",
        "'test:'",
    ),
)


def hyp(case: str, text: str, line: str) -> Refusal:
    files = write("h.yaml", text)
    return Refusal("Hyperparameters", case, "train --weights {weights} --data {data} --hyp h.yaml", line, 1, files)


HYPS = (
    Refusal(
        "Hyperparameters", "missing file", "train --weights {weights} --data {data} --hyp no.yaml", "no.yaml: no such"
    ),
    hyp("unknown key", "lr00: 0.1\n", "unknown hyperparameter 'lr00'; the nearest one is 'lr0'"),
    hyp("a word for a number", "lr0: fast\n", "lr0: 'fast' is not a number"),
    hyp("a negative rate", "lr0: -0.1\n", "lr0: -0.1 is outside"),
    hyp("nan", "momentum: .nan\n", "momentum: nan is outside"),
    hyp("infinite", "box: .inf\n", "box: inf is outside"),
    hyp("a probability above 1", "mosaic: 1.5\n", "mosaic: 1.5 is outside 0 to 1"),
    hyp("a list", "lr0: [0.1]\n", "lr0: [0.1] is not a number"),
    hyp("a truth value", "lr0: yes\n", "lr0: True is not a number"),
    hyp("an empty file", "", "a hyp YAML is a table of keys"),
    hyp("a python tag", "lr0: !!python/object/apply:os.system ['touch ran']\n", "not valid YAML"),
    hyp("broken syntax", "lr0: [\n", "not valid YAML"),
)


def changed(old: str, new: str) -> Callable[[Path], object]:
    """Writes yolov5n-spd.yaml as a.yaml with one passage replaced."""

    def prepare(folder: Path) -> None:
        text = find_architecture("yolov5n-spd.yaml").read_text(encoding="utf-8")
        assert old in text, old
        (folder / "a.yaml").write_text(text.replace(old, new, 1), encoding="utf-8")

    return prepare


def architecture(case: str, files: Callable[[Path], object], line: str) -> Refusal:
    command = "train --weights '' --cfg a.yaml --data {data}"
    return Refusal("Architecture YAML", case, command, line, 1, files)


ARCHITECTURES = (
    Refusal("Architecture YAML", "missing file", "train --weights '' --cfg yolov5n-sdp --data {data}", "nearest is"),
    architecture("empty file", write("a.yaml", ""), "an architecture file is a mapping"),
    architecture("broken syntax", write("a.yaml", "backbone: ["), "not a YAML file"),
    architecture("nested too deeply", write("a.yaml", "x: " + "[" * 1000), "a.yaml:"),
    architecture("a date that is none", write("a.yaml", "x: 2024-99-99\n"), "not a YAML file"),
    architecture("an image called .yaml", write("a.yaml", b"\x89PNG\r\n\x1a\n\x00\xff"), "a.yaml:"),
    architecture(
        "a python tag", write("a.yaml", "nc: !!python/object/apply:os.system ['touch ran']"), "not a YAML file"
    ),
    architecture("unknown key", changed("depth_multiple:", "depth_multipel:"), "nearest is 'depth_multiple'"),
    architecture("missing key", changed("head:", "# head:"), "a.yaml"),
    architecture("unknown layer", changed("SPDConv,", "SPDConf,"), "nearest is 'SPDConv'"),
    architecture("a row of three", changed("[-1, 3, C3, [128]]", "[-1, 3, C3]"), "[from, number, module, arguments]"),
    architecture("a row that reads from below", changed("[[-1, 6], 1,", "[[-1, 99], 1,"), "99"),
    architecture("a row that reads from itself", changed("[[-1, 6], 1,", "[[-1, 12], 1,"), "12"),
    architecture("a layer repeated -1 times", changed("[-1, 3, C3,", "[-1, -1, C3,"), "a whole number of at least 1"),
    architecture("absurd repeats", changed("[-1, 3, C3,", "[-1, 9999, C3,"), "more than 200 repeats"),
    architecture("absurd width", changed("width_multiple: 0.25", "width_multiple: 1.0e+9"), "width_multiple"),
    architecture("width nan", changed("width_multiple: 0.25", "width_multiple: .nan"), "width_multiple is nan"),
    architecture(
        "a kernel that no memory holds",
        changed("SPDConv, [128, 3]", "SPDConv, [128, 30001]"),
        "parameters in one layer",
    ),
    architecture("absurd depth", changed("depth_multiple: 0.33", "depth_multiple: 1.0e+300"), "depth_multiple"),
    architecture("absurd channels", changed("C3, [128]", "C3, [12800000000]"), "12800000000"),
    architecture(
        "channels that are a program", changed("C3, [128]", "C3, [__import__('os').system('touch ran')]"), "a.yaml"
    ),
    architecture(
        "an activation that is a program",
        changed("nc:", "activation: __import__('os').system('touch ran')\nnc:"),
        "activation is",
    ),
    architecture("anchors of an odd number", changed("[10, 13,", "[13,"), "a list of widths and heights"),
    architecture("anchors of other levels", changed("  - [10, 13", "  - [9, 9, 9, 9, 9, 9]\n  - [10, 13"), "anchors"),
    architecture("negative anchors", changed("10, 13", "-10, 13"), "a positive number is needed"),
    architecture("anchors that are a word", changed("anchors:  #", "anchors: auto\nx:  #"), "a.yaml"),
    architecture("absurd number of anchors", changed("anchors:  #", "anchors: 9223372036854775808\n#"), "a.yaml: "),
    architecture("0 classes", changed("nc: 80", "nc: 0"), "nc is 0; a whole number of at least 1"),
    architecture("kernel 0", changed("SPDConv, [128, 3]", "SPDConv, [128, 0]"), "a whole number of at least 1"),
    architecture("even kernel", changed("SPDConv, [128, 3]", "SPDConv, [128, 2]"), "a.yaml"),
    architecture("maps of different sizes joined", changed("[[-1, 14], 1,", "[[-1, 10], 1,"), "a.yaml"),
    architecture(
        "one argument too many", changed("SPDConv, [128, 3]", "SPDConv, [128, 3, 2, True, 9]"), "one too many"
    ),
    architecture("no Detect at the end", changed("Detect, [nc, anchors]", "Concat, [1]"), "a.yaml"),
)


@pytest.mark.parametrize("refusal", [case.param() for case in (*DATASETS, *HYPS, *ARCHITECTURES)])
def test_wrong_yaml(refusal: Refusal, tmp_path: Path, weights: Path, data: Path) -> None:
    refusal.check(tmp_path, weights=weights, data=data)
    assert not (tmp_path / "ran").exists()


@pytest.mark.case("Dataset YAML", "unknown key", "a warning that names it; the rest is used")
def test_an_unknown_key_is_a_warning(tmp_path: Path, weights: Path, data: Path) -> None:
    (tmp_path / "d.yaml").write_text(data.read_text(encoding="utf-8") + "roboflow: {x: 1}\n", encoding="utf-8")
    outcome = succeeds("val", "--weights", weights, "--data", "d.yaml", "--img", 64, "--workers", 0, folder=tmp_path)
    assert "WARNING: d.yaml: the key 'roboflow' is not known and is ignored" in outcome.output


@pytest.mark.case("Dataset YAML", "byte order mark and Windows line ends", "read as any other")
def test_windows_text(tmp_path: Path, weights: Path, data: Path) -> None:
    text = "\ufeff" + data.read_text(encoding="utf-8").replace("\n", "\r\n")
    (tmp_path / "d.yaml").write_bytes(text.encode("utf-8"))
    succeeds("val", "--weights", weights, "--data", "d.yaml", "--img", 64, "--workers", 0, folder=tmp_path)
