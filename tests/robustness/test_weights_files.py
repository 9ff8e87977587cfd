"""Model files that are cut short, of another kind, of another model, or programs in disguise."""

from __future__ import annotations

import functools
import io
import os
import pickle
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.exporting.small_model import small_model, write_small_checkpoint
from tests.robustness.running import Refusal, run, slug, write
from tests.small_dataset import write_small_dataset
from utils.dataset.label_cache import FORMAT_VERSION

pytestmark = pytest.mark.slow
DETECT = "detect --weights {name} --source {images}"


def weights(
    case: str, files: Callable[[Path], object], line: str, name: str = "bad.pt", command: str = DETECT
) -> Refusal:
    return Refusal("Weights", case, command.replace("{name}", name), line, 1, files)


def copied(change: Callable[[bytes], bytes], name: str = "bad.pt") -> Callable[[Path], object]:
    """Writes a checkpoint whose bytes ``change`` has altered."""

    def prepare(folder: Path) -> None:
        good = write_small_checkpoint(folder / "good.pt")
        (folder / name).write_bytes(change(good.read_bytes()))
        good.unlink()

    return prepare


def checkpoint(**changes: Any) -> Callable[[Path], object]:
    """Writes a checkpoint with other values under some keys; a value of ... removes the key."""

    def prepare(folder: Path) -> None:
        path = write_small_checkpoint(folder / "bad.pt")
        content = torch.load(path, weights_only=True) | changes
        torch.save({key: value for key, value in content.items() if value is not ...}, path)

    return prepare


def saved(value: Any) -> Callable[[Path], object]:
    return lambda folder: torch.save(value, folder / "bad.pt")


def other_file(name: str, suffix: str) -> Callable[[Path], object]:
    """The good checkpoint under a name with another ending."""
    return lambda folder: write_small_checkpoint(folder / "good.pt").rename(folder / f"{name}{suffix}")


def damaged_values(value: float) -> Callable[[Path], object]:
    def prepare(folder: Path) -> None:
        model = small_model()
        with torch.no_grad():
            next(model.parameters()).fill_(value)
        path = write_small_checkpoint(folder / "bad.pt")
        content = torch.load(path, weights_only=True)
        torch.save(content | {"model": model.state_dict()}, path)

    return prepare


STATE = {name: each for name, each in small_model().state_dict().items() if not name.startswith("model.3")}
FILES = (
    Refusal("Weights", "missing file", DETECT.replace("{name}", "none.pt"), "none.pt: no such weights file"),
    Refusal("Weights", "a folder", DETECT.replace("{name}", "."), ".: "),
    weights("empty file", write("bad.pt", ""), "bad.pt: not a readable checkpoint"),
    weights("text", write("bad.pt", "hello\n" * 100), "bad.pt: not a readable checkpoint"),
    weights("a web page", write("bad.pt", "<!DOCTYPE html><html>404</html>"), "bad.pt: not a readable checkpoint"),
    weights(
        "a Git LFS pointer", write("bad.pt", "version https://git-lfs.github.com/spec/v1\n"), "bad.pt: not a readable"
    ),
    weights("cut after 100 bytes", copied(lambda b: b[:100]), "bad.pt: not a readable checkpoint"),
    weights("cut in the middle", copied(lambda b: b[: len(b) // 2]), "bad.pt: not a readable checkpoint"),
    weights("without its last byte", copied(lambda b: b[:-1]), "bad.pt: "),
    weights("zeros in the middle", copied(lambda b: b[:20000] + bytes(20000) + b[40000:]), "bad.pt: "),
    weights(
        "a zip of something else",
        lambda f: zipfile.ZipFile(f / "bad.pt", "w").writestr("a.txt", "x"),
        "without data.pkl",
    ),
    weights("a tensor", saved(torch.zeros(3)), "bad.pt: holds no model"),
    weights("a list", saved([1, 2]), "bad.pt: holds no model"),
    weights("a bare state dict", saved(small_model().state_dict()), "bad.pt: holds no model"),
    weights("another schema", checkpoint(schema=99), "checkpoint schema 99; this version reads schema 1"),
    weights("without its architecture", checkpoint(architecture=...), "checkpoint without 'architecture'"),
    weights("an architecture that is a word", checkpoint(architecture="yolo"), "bad.pt: "),
    weights(
        "an architecture that is a program",
        checkpoint(architecture={"nc": "__import__('os').system('touch ran')"}),
        "bad.pt: ",
    ),
    weights("weights of other layers", checkpoint(model=STATE), "weights and architecture do not fit"),
    weights("weights that are numbers", checkpoint(model={"a": 1}), "bad.pt: "),
    weights("strides that are words", checkpoint(strides=["a"]), "bad.pt: "),
    weights("strides that are missing", checkpoint(strides=None), "bad.pt: "),
    weights("strides 0", checkpoint(strides=[0, 0]), "bad.pt: "),
    weights("anchors of another shape", checkpoint(anchors=torch.zeros(1, 2, 3)), "bad.pt: "),
    weights("anchors that are words", checkpoint(anchors="auto"), "anchors are not a tensor"),
    weights("names that are a number", checkpoint(names=3), "class names are 3"),
    weights("too few names", checkpoint(names=["a"]), "bad.pt: "),
    weights("weights that are nan", damaged_values(float("nan")), "bad.pt: "),
    weights("an ONNX file called .pt", write("bad.pt", b"\x08\x08\x12\x07pytorch" * 50), "bad.pt: not a readable"),
    weights("a checkpoint called .onnx", other_file("bad", ".onnx"), "bad.onnx: not a readable ONNX model", "bad.onnx"),
    weights(
        "a checkpoint called .torchscript",
        other_file("bad", ".torchscript"),
        "bad.torchscript: not a readable",
        "bad.torchscript",
    ),
    weights("an ending that no runtime reads", other_file("bad", ".pb"), "known endings are .pt", "bad.pb"),
    weights(
        "an empty OpenVINO folder",
        lambda f: (f / "bad_openvino_model").mkdir(),
        "no OpenVINO model",
        "bad_openvino_model",
    ),
    weights("text called .onnx", write("bad.onnx", "hello"), "bad.onnx: not a readable ONNX model", "bad.onnx"),
    weights("empty .onnx", write("bad.onnx", ""), "bad.onnx: ", "bad.onnx"),
    weights("empty .torchscript", write("bad.torchscript", ""), "bad.torchscript: ", "bad.torchscript"),
    weights("val.py: text", write("bad.pt", "hello"), "not a readable", "bad.pt", "val --weights {name} --data {data}"),
    weights(
        "train.py: text", write("bad.pt", "hello"), "not a readable", "bad.pt", "train --weights {name} --data {data}"
    ),
    weights("export.py: text", write("bad.pt", "hello"), "not a readable", "bad.pt", "export --weights {name}"),
    Refusal(
        "Weights",
        "export.py: an ONNX file",
        "export --weights bad.onnx",
        "only a .pt file",
        2,
        other_file("bad", ".onnx"),
    ),
    weights(
        "--resume: text", write("bad.pt", "hello"), "damaged, or not a checkpoint", "bad.pt", "train --resume {name}"
    ),
    weights(
        "--resume: no training state",
        checkpoint(),
        "bad.pt: not a checkpoint of train.py",
        "bad.pt",
        "train --resume {name}",
    ),
    Refusal("Weights", "--resume: missing file", "train --resume none.pt", "--resume none.pt: no such checkpoint"),
    Refusal("Weights", "--resume: no run at all", "train --resume", "no run with a weights/last.pt"),
)


@pytest.mark.parametrize("refusal", [case.param() for case in FILES])
def test_a_wrong_model_file(refusal: Refusal, tmp_path: Path, weights: Path, data: Path) -> None:
    refusal.check(tmp_path, weights=weights, data=data, images=data.parent / "images" / "val")
    assert not (tmp_path / "ran").exists()


class Runs:
    """Pickles to a call of ``function(*arguments)``."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


class Built(Runs):
    """Pickles to a call whose result is given a state, the way ``BUILD`` sets attributes."""

    def __reduce__(self) -> Any:
        return (*self.call, {"__dict__": {"a": 1}})


def payloads(mark: Path) -> dict[str, Any]:
    """Objects whose unpickling would make the file ``mark``."""
    touch = f"touch {mark}"
    return {
        "reduce": Runs(os.system, touch),
        "nested in a list in a dict": {"model": [{"a": [Runs(os.system, touch)]}]},
        "getattr chain": Runs(getattr, Runs(__import__, "os"), "system"),
        "eval": Runs(eval, f"open({str(mark)!r}, 'w').close()"),
        "exec": Runs(exec, f"open({str(mark)!r}, 'w').close()"),
        "subprocess": Runs(subprocess.check_call, ["touch", str(mark)]),
        "open": Runs(open, str(mark), "w"),
        "build": Built(os.system, touch),
        "a pickle in a pickle": Runs(pickle.loads, pickle.dumps(Runs(os.system, touch))),
        "torch.load": Runs(torch.load, str(mark)),
        "partial": Runs(functools.partial, os.system, touch),
        "a map that calls": Runs(list, Runs(map, os.system, [touch])),
    }


def write_hostile(path: Path, form: str, value: Any, protocol: int) -> None:
    """A hostile object in one of the forms that a model file or a cache has."""
    program = pickle.dumps(value, protocol)
    if form == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", program)
    elif form == "legacy tar":
        with tarfile.open(path, "w") as tar:
            for name in ("storages", "tensors", "pickle"):
                entry = tarfile.TarInfo(name)
                entry.size = len(program)
                tar.addfile(entry, io.BytesIO(program))
    else:
        head = [pickle.dumps(each, 2) for each in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
        path.write_bytes(b"".join(head) + program if form == "legacy stream" else program)


HOSTILE = [
    pytest.param(
        form, kind, id=slug(f"{form} {kind}"),
        marks=pytest.mark.case("Hostile files", f"{kind}, {form}, protocols 0-5", "refused in one line, nothing runs"),
    )
    for form in ("zip", "legacy stream", "legacy tar", "bare pickle")
    for kind in payloads(Path("x"))
]  # fmt: skip


@pytest.mark.parametrize(("form", "kind"), HOSTILE)
def test_a_hostile_model_file_runs_nothing(form: str, kind: str, tmp_path: Path, data: Path) -> None:
    mark = tmp_path / "ran"
    for protocol in range(6):
        write_hostile(tmp_path / "bad.pt", form, payloads(mark)[kind], protocol)
        source = data.parent / "images" / "val"
        for command in (("detect", "--weights", "bad.pt", "--source", source), ("train", "--resume", "bad.pt")):
            outcome = run(*command, folder=tmp_path)
            assert outcome.code == 1 and len(outcome.error_lines) == 1, (command, protocol, outcome.errors)
        assert not mark.exists(), (command, protocol)


@pytest.mark.case("Hostile files", "a pickle in the place of a label cache", "not read; the cache is built again")
def test_a_hostile_label_cache_runs_nothing(tmp_path: Path, weights: Path) -> None:
    dataset = write_small_dataset(tmp_path / "small", train=2, val=2)
    command = ("val", "--weights", weights, "--data", dataset, "--img", 64, "--workers", 0)
    assert run(*command, folder=tmp_path).code == 0
    (cache,) = (tmp_path / "small").rglob("*.cache.npz")
    good, mark = cache.read_bytes(), tmp_path / "ran"
    cache.write_bytes(pickle.dumps(Runs(os.system, f"touch {mark}")))
    outcome = run(*command, folder=tmp_path)
    assert outcome.code == 0 and "the label cache cannot be used" in outcome.output
    np.savez(
        cache.open("wb"),
        version=np.int64(FORMAT_VERSION),
        text=np.array([Runs(os.system, f"touch {mark}")], dtype=object),
    )
    assert run(*command, folder=tmp_path).code == 0
    # YOLOv5's own caches are pickles beside the labels folder.
    (cache.parent / "val.cache").write_bytes(pickle.dumps(Runs(os.system, f"touch {mark}")))
    assert run(*command, folder=tmp_path).code == 0
    assert not mark.exists() and len(cache.read_bytes()) == len(good)


@pytest.mark.case("Weights", "ONNX of a fixed size with another --imgsz", "a warning; the file's own size is used")
def test_an_onnx_file_keeps_its_size(onnx: Path, data: Path, tmp_path: Path) -> None:
    source = data.parent / "images" / "val"
    outcome = run("detect", "--weights", onnx, "--source", source, "--img", 128, folder=tmp_path)
    assert outcome.code == 0 and "taking 64x64 px, the only size that the model file takes" in outcome.output


@pytest.mark.case("Weights", "an official name, offline", "one line with the address and where to put the file")
def test_an_official_name_offline(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPD_WEIGHTS_URL", "http://127.0.0.1:9/none")
    outcome = run("detect", "--weights", "yolov5n.pt", "--source", data.parent / "images" / "val", folder=tmp_path)
    assert outcome.code == 1 and len(outcome.error_lines) == 1, outcome.errors
    assert "http://127.0.0.1:9/none/yolov5n.pt" in outcome.error_lines[0] and "put it at" in outcome.error_lines[0]
