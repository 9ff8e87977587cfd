"""The page and the C++ programs in ``examples`` find what this project's own pipeline finds."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from queue import Queue
from threading import Thread

import cv2
import numpy as np
import onnx
import pytest

from models.fuse import fused
from tests.examples.test_programs import CONFIDENCE, FRAME, IOU, expected_in
from tests.exporting.small_model import NAMES, small_model
from tests.shared_data import REPOSITORY
from utils.dataset.image_files import read_image
from utils.exporting.export_settings import ExportSettings
from utils.exporting.onnx import write_onnx

PAGE = REPOSITORY / "examples" / "browser"
CPP = REPOSITORY / "examples" / "cpp"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium (apt install chromium)")
needs_onnxruntime_web = pytest.mark.skipif(
    not (PAGE / "node_modules" / "onnxruntime-web").is_dir(),
    reason="no onnxruntime-web (make examples/browser/node_modules)",
)
HEADERS = next(filter(Path.is_dir, (Path("/usr/include/onnxruntime"), CPP / "headers")), None)  # of ONNX Runtime
needs_cpp = pytest.mark.skipif(
    None in (shutil.which("g++"), shutil.which("make")) or not Path("/usr/include/stb/stb_image.h").is_file(),
    reason="no g++, make or stb_image (apt install g++ make libstb-dev)",
)
needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="no OpenVINO (pip install openvino)")
needs_headers = pytest.mark.skipif(
    HEADERS is None, reason="no headers of ONNX Runtime (apt install libonnxruntime-dev, or make examples/cpp/headers)"
)
PROGRAMS = [
    pytest.param("detect_openvino", marks=needs_openvino),
    pytest.param("detect_onnxruntime", marks=needs_headers),
]
# What the page says is sent to its server.
TELL = """<script>
const objects = document.getElementById("objects");
new MutationObserver(() => fetch("/", {method: "POST", body: objects.textContent})).observe(objects, {childList: true});
</script></html>"""


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder, and keeps what the page says."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript", ".wasm": "application/wasm"}

    def __init__(self, said: Queue[str], *args: object, directory: str) -> None:
        self.said = said
        super().__init__(*args, directory=directory)  # type: ignore[arg-type]

    def do_POST(self) -> None:
        self.said.put(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of fixed and free size, and two images ten times as large as its frame, whose scaling all round alike."""
    folder = tmp_path_factory.mktemp("files")
    write_onnx(fused(small_model()).eval(), folder / "best.onnx", ExportSettings(FRAME))
    free = onnx.load(folder / "best.onnx")
    free.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    onnx.save(free, folder / "free.onnx")
    images = REPOSITORY / "data" / "images"
    for name, image in (("wide", read_image(images / "harbour.jpg")), ("tall", read_image(images / "villages.jpg"))):
        cv2.imwrite(str(folder / f"{name}.png"), image[:, 400:880, ::-1] if name == "tall" else image[..., ::-1])
    return folder


@pytest.fixture(scope="module")
def site(files: Path) -> Path:
    """The page beside the files."""
    page = (PAGE / "index.html").read_text(encoding="utf-8")
    (files / "index.html").write_text(page.replace("</html>", TELL), encoding="utf-8")
    for name in ("detect.js", "node_modules"):
        (files / name).symlink_to(PAGE / name)
    return files


@contextmanager
def served(folder: Path, said: Queue[str]) -> Iterator[int]:
    """The port of a server of the folder on this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, said, directory=str(folder))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def shown(site: Path, query: str, profile: Path) -> list[str]:
    """The lines that the page shows in headless Chromium."""
    assert CHROMIUM is not None
    said: Queue[str] = Queue()
    with served(site, said) as port:
        address = f"http://127.0.0.1:{port}/index.html?{query}&conf={CONFIDENCE}&iou={IOU}"
        flags = (
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={profile}",
            "--remote-debugging-port=0",
        )
        browser = subprocess.Popen([CHROMIUM, *flags, address], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            return said.get(timeout=120).splitlines()
        finally:
            browser.terminate()
            browser.wait(timeout=60)


def assert_found(lines: list[str], image: Path) -> None:
    """The lines of a program are what ``detect.py`` finds in the image with the model beside it."""
    words = [line.rsplit(" ", 5) for line in lines]
    found = np.array([line[1:] for line in words], dtype=np.float64)
    expected = expected_in(image, image.with_name("best.onnx"))
    assert 5 < len(expected.scores) < 300, "there is something to compare"
    assert [line[0] for line in words] == [NAMES[kind] for kind in expected.classes.tolist()]
    np.testing.assert_allclose(found[:, 0], expected.scores, rtol=0, atol=0.01)
    np.testing.assert_allclose(found[:, 1:], expected.boxes, rtol=0, atol=1)


@pytest.mark.parametrize("program", [PAGE / "detect.js", *sorted(CPP.glob("*.cpp"))], ids=lambda path: path.name)
def test_a_program_is_short(program: Path) -> None:
    lines = program.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 80 and max(len(line) for line in lines) <= 120


@pytest.mark.slow
@needs_chromium
@needs_onnxruntime_web
@pytest.mark.parametrize("image", ["wide.png", "tall.png"])
def test_the_page_shows_the_boxes_of_detect(image: str, site: Path, tmp_path: Path) -> None:
    assert_found(shown(site, f"model=best.onnx&image={image}", tmp_path), site / image)


@pytest.mark.slow
@needs_chromium
@needs_onnxruntime_web
def test_what_the_page_cannot_take_is_said(site: Path, tmp_path: Path) -> None:
    assert shown(site, "model=free.onnx&image=wide.png", tmp_path) == ["Export without --nms, --dynamic."]


@pytest.fixture(scope="module")
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A C++ program."""
    name, folder = str(request.param), tmp_path_factory.mktemp("built")
    for file in (f"{name}.cpp", "Makefile"):
        shutil.copy(CPP / file, folder)
    command = ["make", name, f"PYTHON={sys.executable}", f"HEADERS={HEADERS}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return folder / name


@pytest.mark.slow
@needs_cpp
@pytest.mark.parametrize("built", PROGRAMS, indirect=True)
@pytest.mark.parametrize("image", ["wide.png", "tall.png"])
def test_the_cpp_programs_print_the_boxes_of_detect(built: Path, image: str, files: Path) -> None:
    model = files / "best.onnx"
    if image == "tall.png" and built.name == "detect_openvino":
        openvino = pytest.importorskip("openvino")
        model = files / "best.xml"
        openvino.save_model(openvino.Core().read_model(files / "best.onnx"), model, compress_to_fp16=False)
    command = list(map(str, (built, model, files / image, CONFIDENCE, IOU)))
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert_found(done.stdout.splitlines(), files / image)


@pytest.mark.slow
@needs_cpp
@pytest.mark.parametrize("built", PROGRAMS, indirect=True)
def test_what_the_cpp_programs_cannot_take_is_one_line(built: Path, files: Path) -> None:
    for model, image, message in (
        ("free.onnx", "wide.png", "export without --dynamic, --nms"),
        ("best.onnx", "none.png", "none.png: not a readable image"),
    ):
        done = subprocess.run([built, files / model, files / image], capture_output=True, text=True)
        assert done.returncode == 1 and done.stdout == "" and done.stderr.endswith(f"{message}\n")
        assert done.stderr.count("\n") == 1
