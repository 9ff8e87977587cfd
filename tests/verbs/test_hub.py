"""The hub API: every kind of input, YOLOv5's forms of results, bare models, threads."""

from __future__ import annotations

import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from models.yolo import DetectionModel
from tests.exporting.small_model import NAMES, small_model, write_small_checkpoint, write_small_torchscript
from tests.runtime.loopback import Served, loopback_server
from tests.same_detections import assert_same_detections
from tests.shared_data import REPOSITORY, SHARED, needs_shared
from utils.reporting import hub_results
from utils.reporting.hub_results import HubResults
from utils.user_error import UserError
from utils.verbs.hub import HubDetector

SIZE = 96
CONF = 0.91


def load(name: str, **arguments: Any) -> Any:
    return torch.hub.load(str(REPOSITORY), name, source="local", _verbose=False, **arguments)  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights, and a lossless image ``a.png`` of 64 x 96."""
    folder = tmp_path_factory.mktemp("hub")
    write_small_checkpoint(folder / "small.pt")
    Image.fromarray(pixels(0)).save(folder / "a.png")
    return folder


@pytest.fixture
def model(folder: Path) -> HubDetector:
    detector = load("custom", path=folder / "small.pt")
    assert isinstance(detector, HubDetector)
    # Noise gives crowds of boxes with nearly equal scores: which of them survives, or which of a box's classes is the
    # best, hangs on the last bit. Here nothing is suppressed, and every class above the threshold is given.
    detector.conf, detector.iou, detector.multi_label = CONF, 1.0, True
    return detector


def pixels(seed: int, height: int = 64, width: int = 96) -> np.ndarray:
    """Image (H, W, 3) uint8 RGB."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def call(model: HubDetector, ims: Any) -> HubResults:
    results = model(ims, size=SIZE)
    assert isinstance(results, HubResults)
    return results


def assert_same(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Rows of two calls; folded layers and other batches move a box by 0.001 pixels and a score by 0.00002."""
    assert_same_detections(found, expected, box=0.01, score=1e-4, threshold=CONF)


def test_every_kind_of_input_gives_the_same(model: HubDetector, folder: Path) -> None:
    array = pixels(0)
    with loopback_server({"a.png": Served((folder / "a.png").read_bytes())}) as server:
        kinds: dict[str, Any] = {
            "text": str(folder / "a.png"),
            "path": folder / "a.png",
            "address": server.url("a.png"),
            "PIL": Image.open(folder / "a.png"),
            "array": array,
            "channels first": array.transpose(2, 0, 1),
            "RGBA": np.dstack((array, np.full((64, 96), 7, np.uint8))),
            "OpenCV, turned": np.asarray(cv2.imread(str(folder / "a.png")))[..., ::-1],
            "floating point": array / 255,
        }
        expected = call(model, array).xyxy[0]
        assert len(expected) > 5
        for kind, source in kinds.items():
            results = call(model, source)
            assert np.array_equal(results.ims[0], array), kind
            assert_same(results.xyxy[0], expected)
    everything = call(model, list(kinds.values())[3:])
    assert len(everything) == 6
    assert everything.files[:2] == ["a.jpg", "image1.jpg"]
    for rows in everything.xyxy:
        assert_same(rows, expected)
    grey, threefold = call(model, array[..., 0]), call(model, np.repeat(array[..., :1], 3, axis=2))
    assert np.array_equal(grey.ims[0], threefold.ims[0]) and len(grey.xyxy[0]) > 0
    assert_same(grey.xyxy[0], threefold.xyxy[0])


def test_a_turned_photo_is_seen_upright(model: HubDetector, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.fromarray(pixels(1)).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as photo:
        results = call(model, photo)
    assert results.ims[0].shape == (96, 64, 3)


def test_a_tensor_gives_the_rows_of_the_network(model: HubDetector) -> None:
    images = torch.from_numpy(pixels(0)).permute(2, 0, 1)[None] / 255
    rows = model(images)
    assert isinstance(rows, torch.Tensor)
    expected = small_model().head.rows(small_model()(images))
    torch.testing.assert_close(rows, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("nowhere.jpg", "nowhere.jpg"),
        (np.zeros((4, 5, 6, 3)), r"shape \(4, 5, 6, 3\)"),
        (np.full((4, 5, 3), 200.0), "floating point 0-1"),
        (7, "a int"),
    ],
)
def test_what_is_no_image(model: HubDetector, source: Any, line: str) -> None:
    with pytest.raises(UserError, match=line):
        model([source])


def test_forms_of_results(model: HubDetector) -> None:
    results = call(model, [pixels(0), pixels(1, 96, 64)])
    assert len(results) == results.n == 2 and results.names == dict(enumerate(NAMES))
    for image, (width, height) in enumerate(((96, 64), (64, 96))):
        corners, centres = results.xyxy[image], results.xywh[image]
        assert corners.shape[1] == 6 and len(corners) > 3
        torch.testing.assert_close(centres[:, 0], (corners[:, 0] + corners[:, 2]) / 2)
        torch.testing.assert_close(centres[:, 3], corners[:, 3] - corners[:, 1])
        torch.testing.assert_close(results.xyxyn[image][:, 2] * width, corners[:, 2])
        torch.testing.assert_close(results.xywhn[image][:, 1] * height, centres[:, 1])
        assert torch.equal(results.xywhn[image][:, 4:], corners[:, 4:])
    assert results.pred is results.xyxy
    assert [one.xyxy[0].shape for one in results.tolist()] == [rows.shape for rows in results.xyxy]
    assert results.s == (1, 3, 64, 96) or results.s == (1, 3, 96, 64)


def test_pandas(model: HubDetector) -> None:
    results = call(model, pixels(0))
    frame = results.pandas().xyxy[0]
    assert list(frame.columns) == ["xmin", "ymin", "xmax", "ymax", "confidence", "class", "name"]
    assert list(results.pandas().xywhn[0].columns)[:4] == ["xcenter", "ycenter", "width", "height"]
    np.testing.assert_allclose(frame["xmax"], results.xyxy[0][:, 2], rtol=1e-6)
    assert [NAMES[kind] for kind in frame["class"]] == list(frame["name"])
    assert isinstance(results.xyxy[0], torch.Tensor), "the results themselves stay tensors"
    model.conf = 1.0
    assert len(call(model, pixels(0)).pandas().xyxy[0]) == 0


def test_print_and_text(model: HubDetector, capsys: pytest.CaptureFixture[str]) -> None:
    results = call(model, pixels(0))
    results.print()
    first, second = capsys.readouterr().out.splitlines()
    boats = int((results.xyxy[0][:, 5] == 1).sum())
    assert first.startswith("image 1/1: 64x96 ") and f"{boats} boat{'s' * (boats > 1)}" in first
    assert second.startswith("Speed: ") and second.endswith("per image at shape (1, 3, 64, 96)")
    assert str(results) in repr(results)
    model.conf = 1.0
    assert "(no detections)" in str(call(model, pixels(0)))


def test_render_and_save(model: HubDetector, folder: Path, tmp_path: Path) -> None:
    results = call(model, [folder / "a.png", folder / "a.png"])
    original = results.ims[0].copy()
    drawn = results.render()
    assert drawn[0].shape == original.shape and (drawn[0] != original).any()
    assert results.ims[0] is drawn[0]
    assert np.array_equal(results.render()[0], drawn[0]), "never drawn on twice"
    assert (results.render(labels=False)[0] != results.render(tags="all")[0]).any()
    save_dir = tmp_path / "runs" / "exp"
    folders = [results.save(save_dir=save_dir) for _ in range(2)]
    assert [path.name for path in folders] == ["exp", "exp2"]
    assert sorted(path.name for path in save_dir.iterdir()) == ["a.jpg", "a_2.jpg"]


def test_images_of_one_name_are_saved_under_names_of_their_own(model: HubDetector, tmp_path: Path) -> None:
    for name in ("x/a.png", "y/a.png", "x/a_2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels(0)).save(tmp_path / name)
    results = call(model, [tmp_path / "x/a.png", tmp_path / "y/a.png", tmp_path / "x/a_2.png"])
    folder = results.save(save_dir=tmp_path / "exp")
    assert sorted(path.name for path in folder.iterdir()) == ["a.jpg", "a_2.jpg", "a_3.jpg"]


def test_crop(model: HubDetector, tmp_path: Path) -> None:
    results = call(model, pixels(0))
    crops = results.crop(save_dir=tmp_path / "exp")
    assert len(crops) == len(results.xyxy[0])
    first = crops[0]
    assert first["label"] == f"{NAMES[int(first['cls'])]} {float(first['conf']):.2f}"
    x1, y1, x2, y2 = first["box"].tolist()
    assert first["im"].shape[0] >= min(y2 - y1, 64) - 1 and first["im"].shape[1] >= min(x2 - x1, 96) - 1
    files = list((tmp_path / "exp" / "crops").glob("*/image0*.jpg"))
    assert len(files) == len(crops)
    assert len(results.crop(save=False)) == len(crops)
    assert not (tmp_path / "exp2").exists()


def test_show(model: HubDetector, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Image.Image] = []
    monkeypatch.setattr(Image.Image, "show", lambda seen: shown.append(seen))
    results = call(model, [pixels(0), pixels(1)])
    monkeypatch.setattr(hub_results, "has_display", lambda: True)
    results.show()
    assert len(shown) == 2
    for seen, image in zip(shown, results.ims, strict=True):
        np.testing.assert_array_equal(np.asarray(seen), image)
    monkeypatch.setattr(hub_results, "has_display", lambda: False)
    lines: list[str] = []
    monkeypatch.setattr(hub_results.LOGGER, "warning", lines.append)
    results.show()
    assert len(shown) == 2 and "no display here" in lines[0]


def test_settings_of_the_model_count(model: HubDetector) -> None:
    everything = call(model, pixels(0)).xyxy[0]
    scores = everything[:, 4]
    last = int((scores[:-1] - scores[1:]).argmax())  # before the widest gap, where no rounding reaches
    model.conf = float(scores[last : last + 2].mean())
    assert len(call(model, pixels(0)).xyxy[0]) == last + 1 < len(everything)
    model.conf = CONF
    model.classes = [1]
    assert set(call(model, pixels(0)).xyxy[0][:, 5].tolist()) == {1.0}
    model.classes, model.max_det = None, 2
    assert len(call(model, pixels(0)).xyxy[0]) == 2
    model.max_det, model.iou, model.agnostic = 1000, 0.01, True
    assert len(call(model, pixels(0)).xyxy[0]) < len(everything)
    augmented = model(pixels(0), size=SIZE, augment=True)
    assert isinstance(augmented, HubResults)
    larger = model(pixels(0), size=(64, 200))
    assert isinstance(larger, HubResults) and larger.s == (1, 3, 64, 96)
    assert model.cpu() is model and model.float() is model and model.eval() is model
    with pytest.raises(UserError, match="GPU"):
        model.half()


def test_conf_auto_takes_the_thresholds_of_the_file(folder: Path) -> None:
    content = torch.load(folder / "small.pt", weights_only=True)
    torch.save(
        {**content, "thresholds": {"best_f1": CONF, "classes": {1: {"objects": 99, "best_f1": 2.0}}}},
        folder / "auto.pt",
    )
    model = load("custom", path=folder / "auto.pt")
    model.iou, model.multi_label, model.conf = 1.0, True, CONF
    every = call(model, [pixels(0)]).xyxy[0]
    model.conf = "auto"
    torch.testing.assert_close(call(model, [pixels(0)]).xyxy[0], every[every[:, 5] != 1], rtol=0, atol=0)
    (folder / "auto.pt").unlink()  # which is not read again for each call
    assert len(call(model, [pixels(0)]).xyxy[0])
    named = load("yolov5n", pretrained=False)
    named.conf = "auto"
    with pytest.raises(UserError, match='conf = "auto": a named model'):
        call(named, [pixels(0)])


def test_another_size_is_told_once(model: HubDetector, caplog: pytest.LogCaptureFixture) -> None:
    for size in ((60, 90), (60, 90), 96, (90, 60), (60, 90)):
        model(pixels(0), size=size)
    ending = "px, multiples of the stride 8"
    assert caplog.messages == [
        f"image size 60x90 (height x width): taking 64x96 {ending}",
        f"image size 90x60 (height x width): taking 96x64 {ending}",
    ]


def test_a_copy_has_settings_of_its_own(model: HubDetector) -> None:
    other = copy.deepcopy(model)
    other.max_det = 1
    assert len(call(other, pixels(0)).xyxy[0]) == 1 < len(call(model, pixels(0)).xyxy[0])
    # Of two boxes of nearly the best score either may come first.
    best = [call(detector, pixels(0)).xyxy[0][:1, 4] for detector in (other, model)]
    torch.testing.assert_close(*best, atol=2e-4, rtol=0)


@pytest.mark.case("Hub", "model.names = [...], and a dictionary of them", "results have these names")
def test_names_can_be_set(model: HubDetector) -> None:
    for names in (["ship", "car", "tree"], {2: "tree", 0: "ship", 1: "car"}):
        model.names = names
        results = call(model, pixels(0))
        assert results.names == {0: "ship", 1: "car", 2: "tree"}
        assert set(results.pandas().xyxy[0]["name"]) <= {"ship", "car", "tree"}


@pytest.mark.parametrize("names", [["one", "two"], "abc", {1: "a", 2: "b", 3: "c"}])
@pytest.mark.case("Hub", "model.names of another number", "“the model has 3 classes, ids 0 to 2; each needs its name”")
def test_names_of_another_number(model: HubDetector, names: Any) -> None:
    with pytest.raises(UserError, match="the model has 3 classes, ids 0 to 2; each needs its name"):
        model.names = names


@pytest.mark.parametrize("classes", [0, [0], (0,), np.int64(0)])
@pytest.mark.case("Hub", "model.classes = 0, a number in place of a list", "this class alone is kept")
def test_one_class_as_a_number(model: HubDetector, classes: Any) -> None:
    model.classes = classes
    assert set(call(model, pixels(0)).xyxy[0][:, 5].tolist()) == {0.0}


@pytest.mark.case("Hub", "results.t", "three entries, as YOLOv5's: preparing, network, suppression")
def test_three_times(model: HubDetector) -> None:
    results = call(model, [pixels(0), pixels(1)])
    preparing, network, suppressing = results.t
    assert preparing > 0 and network > 0 and suppressing > 0


@pytest.mark.case("Hub", "autoshape=False: model(images)[0]", "rows (B, N, 5 + C) in evaluation, raw maps in training")
def test_autoshape_false_is_the_bare_network(folder: Path) -> None:
    bare = load("custom", path=folder / "small.pt", autoshape=False)
    assert isinstance(bare, DetectionModel)
    images = torch.rand(2, 3, 64, 96)
    rows, levels = bare.eval()(images)
    maps = small_model()(images)
    for ours, own in zip(levels, maps.levels, strict=True):
        torch.testing.assert_close(ours, own, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(rows, small_model().head.rows(maps), atol=1e-3, rtol=1e-4)
    boxes = bare.predict(images).boxes
    assert boxes.shape == (2, rows.shape[1], 4)
    assert [name for name, _ in bare.named_parameters()] == [name for name, _ in small_model().named_parameters()]
    assert [level.shape for level in bare.train()(images)] == [level.shape for level in levels]


def test_named_models() -> None:
    bare = load("yolov5n_spd", pretrained=False, classes=7, channels=4, autoshape=False)
    assert isinstance(bare, DetectionModel)
    assert bare.class_count == 7 and bare(torch.rand(1, 4, 64, 64)).levels[0].shape[-1] == 12
    detector = load("yolov5n", pretrained=False)
    assert isinstance(detector, HubDetector) and len(detector.names) == 80
    with pytest.raises(UserError, match="autoshape=False"):
        load("yolov5n", pretrained=False, channels=1)
    with pytest.raises(RuntimeError, match="yolov5q"):
        load("yolov5q")


def test_threads_get_what_one_thread_gets(model: HubDetector) -> None:
    images = [pixels(seed, 64 + 8 * (seed % 3), 96) for seed in range(12)]
    expected = [call(model, image).xyxy[0] for image in images]
    assert all(len(rows) > 0 for rows in expected)
    together = threading.Barrier(2)

    def detect(seeds: range) -> list[torch.Tensor]:
        torch.set_num_threads(1)
        together.wait(10)
        return [call(model, images[seed]).xyxy[0] for seed in seeds]

    with ThreadPoolExecutor(2) as pool:
        halves = list(pool.map(detect, (range(12), range(12))))
    for half in halves:
        for ours, own in zip(half, expected, strict=True):
            assert_same(ours, own)


def test_an_exported_file(folder: Path, tmp_path: Path, model: HubDetector) -> None:
    path = write_small_torchscript(tmp_path / "small.torchscript", (64, 96))
    exported = load("custom", path=path)
    assert isinstance(exported, HubDetector)
    exported.conf, exported.iou, exported.multi_label = model.conf, model.iou, model.multi_label
    results = call(exported, [pixels(0), pixels(1)])
    for ours, own in zip(results.xyxy, call(model, [pixels(0), pixels(1)]).xyxy, strict=True):
        assert len(own) > 5
        assert_same(ours, own)
    assert results.names == {0: "class0", 1: "class1", 2: "class2"}, "the file names none"
    with pytest.raises(UserError, match="only for"):
        exported(pixels(0), augment=True)


@pytest.mark.case("Hub", "autoshape=False of an exported file", "callable: images to rows (B, N, 5 + C)")
def test_a_bare_exported_file(tmp_path: Path) -> None:
    bare = load("custom", path=write_small_torchscript(tmp_path / "small.torchscript", (64, 96)), autoshape=False)
    images = torch.rand(2, 3, 64, 96)
    rows = bare.eval()(images)
    torch.testing.assert_close(rows, small_model().head.rows(small_model()(images)), atol=1e-3, rtol=1e-4)
    assert bare.predict(images).boxes.shape == (2, rows.shape[1], 4)
    assert bare.names == ("class0", "class1", "class2")


@needs_shared
@pytest.mark.parametrize(
    "count", [pytest.param(12, marks=pytest.mark.slow), pytest.param(128, marks=pytest.mark.acceptance)]
)
@pytest.mark.kernels
def test_official_weights_through_the_hub_and_detect_py(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from utils.config.command_line import parse_command_line
    from utils.config.detect_flags import DetectConfig
    from utils.verbs.detect import run_detection

    weights = SHARED / "weights" / "yolov5n.pt"
    images = sorted((SHARED / "data" / "coco128" / "images" / "train2017").glob("*.jpg"))[:count]
    assert len(images) == count
    (tmp_path / "list.txt").write_text("".join(f"{path}\n" for path in images))
    words = ("--weights", weights, "--source", tmp_path / "list.txt", "--save-txt", "--save-conf", "--nosave")
    flags = list(map(str, (*words, "--project", tmp_path)))
    run = run_detection(parse_command_line(DetectConfig, flags, prog="detect.py", description=""))
    monkeypatch.chdir(SHARED / "weights")  # where `yolov5n.pt` is found by its name
    spd = load("yolov5n_spd")
    plain = load("custom", path=weights)
    results = plain([str(path) for path in images])
    for path, rows, spd_rows in zip(images, results.xywhn, spd([str(path) for path in images]).xywhn, strict=True):
        file = run.folder / "labels" / f"{path.stem}.txt"
        written = np.loadtxt(file, ndmin=2) if file.exists() else np.zeros((0, 6))
        # The file holds six digits; its images went through the network one by one.
        assert_same_detections(rows, written[:, [1, 2, 3, 4, 5, 0]], box=5e-5, score=5e-5, threshold=0.25)
        # Space-to-depth starts as the same function, in another order of summation.
        assert_same_detections(spd_rows, rows, box=1e-3, score=1e-3, threshold=0.25)
