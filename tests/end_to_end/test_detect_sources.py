"""detect.py on streams, videos and lists: what ends up in the run folder."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.end_to_end.scripts import command, environment, run_script
from tests.exporting.small_model import write_small_checkpoint
from tests.inference.mjpeg_server import Camera, cameras_on_loopback
from tests.inference.test_frame_sources import damaged_video, write_video
from tests.same_detections import assert_same_label_rows
from tests.shared_data import SHARED, needs_shared
from utils.config.command_line import parse_command_line
from utils.config.detect_flags import DetectConfig
from utils.inference import live_sources
from utils.inference.live_sources import StreamPatience
from utils.user_error import UserError
from utils.verbs.detect import DetectionSummary, run_detection


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_checkpoint(tmp_path_factory.mktemp("weights") / "small.pt")


@pytest.fixture(autouse=True)
def _short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_sources, "StreamPatience", lambda: StreamPatience(tries=3, first_wait=0.01))


def detect(weights: Path, folder: Path, *flags: object) -> DetectionSummary:
    words = ("--weights", weights, "--img", 64, "--project", folder / "runs", *flags)
    return run_detection(parse_command_line(DetectConfig, list(map(str, words)), prog="detect.py", description=""))


def noise(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def labels(run: DetectionSummary) -> dict[str, np.ndarray]:
    return {path.stem: np.loadtxt(path, ndmin=2) for path in (run.folder / "labels").iterdir()}


def frames_of(path: Path) -> list[np.ndarray]:
    capture = cv2.VideoCapture(str(path))
    frames: list[np.ndarray] = []
    while True:
        done, image = capture.read()
        if not done:
            capture.release()
            return frames
        frames.append(image)


@pytest.mark.case("Streams", "connection drops in the middle of an image", "sought again; the other stream goes on")
def test_two_streams_one_of_which_drops_its_connection(weights: Path, tmp_path: Path) -> None:
    cameras = {"east": Camera([noise(0)], [-4, 8]), "west": Camera([noise(1, 64, 48)], [9])}
    with cameras_on_loopback(**cameras) as addresses:
        (tmp_path / "yard.streams").write_text("".join(f"{address}\n" for address in addresses.values()))
        run = detect(weights, tmp_path, "--source", tmp_path / "yard.streams", "--save-txt", "--save-conf")
    videos = sorted(path.name for path in run.folder.glob("*.mp4"))
    assert len(videos) == 2 and videos[0].endswith("_east.mp4") and videos[1].endswith("_west.mp4")
    shapes = [frames_of(run.folder / name)[0].shape for name in videos]
    assert shapes == [(48, 64, 3), (64, 48, 3)]
    found = labels(run)
    for name in videos:
        stem = name.removesuffix(".mp4")
        numbers = sorted(int(key.rpartition("_")[2]) for key in found if key.startswith(stem))
        assert numbers and numbers[-1] >= 8, "the newest frame is always looked at"
    assert run.frames == len(found)


@pytest.mark.case("Streams", "nobody answers", "exit 1: “cannot be opened or gives no frame”")
def test_nobody_streams(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be opened or gives no frame") as error:
        detect(weights, tmp_path, "--source", "http://127.0.0.1:9/a")
    assert error.value.exit_code == 1


def test_lossless_video_gives_the_boxes_of_its_images(weights: Path, tmp_path: Path) -> None:
    images = [noise(seed) for seed in range(5)]
    # Noise gives crowds of boxes with nearly equal scores: which of them survives hangs on the last bit. The nearest
    # score is 0.001 from the threshold here, and nothing is suppressed.
    check_video_against_images(weights, tmp_path, images, "--img", 64, "--conf", 0.9, "--iou", 1)


@needs_shared
@pytest.mark.slow
def test_lossless_video_of_real_images(tmp_path: Path) -> None:
    sources = sorted((SHARED / "data" / "coco128" / "images" / "train2017").glob("*.jpg"))
    images = [image for path in sources if (image := cv2.imread(str(path))) is not None]
    images = [image[..., ::-1] for image in images if image.shape == (480, 640, 3)][:6]
    check_video_against_images(SHARED / "weights" / "yolov5n.pt", tmp_path, images, "--img", 320)


def check_video_against_images(weights: Path, folder: Path, images: list[np.ndarray], *flags: object) -> None:
    """The label rows of each frame of an FFV1 video equal those of the image itself, at any batch size."""
    height, width = images[0].shape[:2]
    (folder / "images").mkdir()
    writer = cv2.VideoWriter(str(folder / "v.avi"), cv2.VideoWriter.fourcc(*"FFV1"), 10, (width, height))
    for number, image in enumerate(images):
        bgr = np.ascontiguousarray(image[..., ::-1])
        writer.write(bgr)
        cv2.imwrite(str(folder / "images" / f"v_{number}.png"), bgr)
    writer.release()
    common = (*flags, "--save-txt", "--save-conf", "--nosave")
    stills = labels(detect(weights, folder, "--source", folder / "images", *common))
    assert len(stills) == len(images)
    frames = labels(detect(weights, folder, "--source", folder / "v.avi", *common))
    assert frames.keys() == stills.keys()
    for name, rows in stills.items():
        assert_same_label_rows(frames[name], rows)
    batched = labels(detect(weights, folder, "--source", folder / "v.avi", *common, "--batch-size", 4))
    for name, rows in stills.items():
        assert_same_label_rows(batched[name], rows)


def test_annotated_video_plays_as_long_as_its_source(weights: Path, tmp_path: Path) -> None:
    source = write_video(tmp_path / "v.avi", [10 * k for k in range(1, 13)])
    for stride in (1, 3):
        run = detect(weights, tmp_path, "--source", source, "--vid-stride", stride)
        capture = cv2.VideoCapture(str(run.folder / "v.mp4"))
        frames, rate = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
        assert frames == 12 // stride and rate == pytest.approx(12.5 / stride, rel=1e-3)
        assert (capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)) == (32, 24)
        code = int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little").decode()
        assert code in ("h264", "avc1")


@pytest.mark.case("Videos", "a frame that cannot be read", "named and skipped; the frames after it keep their numbers")
def test_video_with_a_damaged_frame(weights: Path, tmp_path: Path) -> None:
    source = damaged_video(tmp_path / "v.avi", [10, 60, 110, 160, 210], damaged=2)
    run = detect(weights, tmp_path, "--source", source, "--conf", 0.001, "--save-csv")
    assert run.frames == 4 and run.skipped == (f"{source}: frame 2 is not readable",)
    assert len(frames_of(run.folder / "v.mp4")) == 4


@pytest.mark.case("Videos", "no frame", "named and skipped; exit 1 if there is nothing else")
def test_video_without_frames(weights: Path, tmp_path: Path) -> None:
    source = write_video(tmp_path / "v.avi", [])
    with pytest.raises(UserError, match=r"v\.avi: none of 1 files could be read"):
        detect(weights, tmp_path, "--source", source)
    write_video(tmp_path / "w.avi", [10, 20])
    run = detect(weights, tmp_path, "--source", tmp_path, "--save-csv")
    assert run.frames == 2 and len(run.skipped) == 1 and [path.name for path in run.folder.glob("*.mp4")] == ["w.mp4"]


def test_a_video_that_cannot_be_written_ends_the_run_in_one_line(weights: Path, tmp_path: Path) -> None:
    source = write_video(tmp_path / "v.avi", [10] * 40)
    (tmp_path / "runs" / "exp" / "v.mp4.part").mkdir(parents=True)
    flags = ("--source", source, "--project", tmp_path / "runs", "--exist-ok", "--save-json")
    with pytest.raises(UserError, match=r"exp/v\.mp4: cannot be written: Is a directory") as error:
        detect(weights, tmp_path, *flags)
    assert error.value.exit_code == 1
    assert json.loads((tmp_path / "runs" / "exp" / "predictions.json").read_text()) is not None  # others are finished


def test_images_and_videos_in_one_folder(weights: Path, tmp_path: Path) -> None:
    for name in ("a.avi", "c.avi"):
        write_video(tmp_path / name, [10, 20])
    cv2.imwrite(str(tmp_path / "b.png"), noise(3))
    run = detect(weights, tmp_path, "--source", tmp_path, "--batch-size", 4)
    assert sorted(path.name for path in run.folder.iterdir()) == ["a.mp4", "b.png", "c.mp4"]
    assert [len(frames_of(run.folder / name)) for name in ("a.mp4", "c.mp4")] == [2, 2]


@pytest.mark.slow
def test_list_on_standard_input(weights: Path, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), noise(4))
    words = command("detect.py", "--weights", weights, "--source", "-", "--img", 64, "--project", tmp_path / "runs")
    result = subprocess.run(
        words, input="b.png\nnone.png\na.png\n", cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "WARNING: none.png: no such file or folder (skipped)" in result.stdout
    assert sorted(path.name for path in (tmp_path / "runs" / "exp").glob("*.png")) == ["a.png", "b.png"]
    result = run_script("detect.py", "--weights", weights, "--source", tmp_path / "none", folder=tmp_path, expect=1)
    assert result.stderr.count("\n") == 1


@pytest.mark.case("Streams", "Ctrl-C", "exit 0, all files finished")
@pytest.mark.slow
def test_a_signal_ends_a_stream_with_whole_files(weights: Path, tmp_path: Path) -> None:
    with cameras_on_loopback(a=Camera([noise(5)], [10**9])) as addresses:
        flags = ("--source", addresses["a"], "--img", 64, "--save-txt", "--save-json", "--project", tmp_path / "runs")
        words = command("detect.py", "--weights", weights, *flags)
        process = subprocess.Popen(words, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True)
        end = time.monotonic() + 60
        while len(list((tmp_path / "runs").glob("exp/labels/*.txt"))) < 5:
            assert time.monotonic() < end and process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 0, "Ctrl-C is how a stream ends"
    assert output.splitlines()[-1] == "results in runs/exp" or output.splitlines()[-1].endswith("/runs/exp")
    (video,) = (tmp_path / "runs" / "exp").glob("*.mp4")
    assert len(frames_of(video)) > 0
    assert (tmp_path / "runs" / "exp" / "predictions.json").read_text().endswith("]")
