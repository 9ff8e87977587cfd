"""Hypothesis against every reader of a user's file, and the geometry with extreme numbers.

In `make test` each target takes about a second. `make acceptance` gives each ten minutes (SPD_FUZZ_MINUTES) of fresh,
printed seeds. What once failed stays as an explicit example.
"""

from __future__ import annotations

import copy
import io
import math
import os
import random
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from models.architecture import Architecture
from models.head import Detect
from models.weights import build_model, read_weights
from models.yolo import DetectionModel, read_architecture
from tests.exporting.small_model import small_model, write_small_checkpoint
from tests.shared_data import REPOSITORY
from utils.config.dataset_yaml import read_dataset_yaml
from utils.dataset.label_files import read_label_file
from utils.geometry.letterbox import FrameSize, letterbox
from utils.geometry.records import HeadMaps, Predictions
from utils.inference.nms import NmsSettings, non_max_suppression
from utils.user_error import UserError

Target = tuple[st.SearchStrategy[Any], Callable[[Any, Path], None]]
MINUTES = float(os.environ.get("SPD_FUZZ_MINUTES", "10"))


def one_line(error: UserError) -> None:
    """What every refusal has to be."""
    assert str(error) and "\n" not in str(error), repr(str(error)[:300])


EDGES = st.sampled_from(
    [0, -0.0, 1, -1, 0.5, 1e-45, 1e-38, 1e38, 3.5e38, 1e300, -1e300, 2**24, 2**31, 2**63, math.nan, math.inf, -math.inf]
)
CELLS = st.one_of(
    EDGES.map(str), st.floats(0, 1).map(str), st.integers(0, 3).map(str), st.floats().map(repr), st.text(max_size=5)
)
LINES = st.one_of(st.lists(CELLS, max_size=9).map(" ".join), st.lists(CELLS, min_size=5, max_size=5).map(" ".join))
LABEL_FILES = st.one_of(
    st.builds(str.join, st.sampled_from(["\n", "\r\n", "\r"]), st.lists(LINES, max_size=6)),
    st.binary(max_size=80),
)  # fmt: skip


def check_labels(content: str | bytes, folder: Path) -> None:
    """A label file of any content: sound rows come out, with their lines, and every other row is a problem."""
    path = folder / "x.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", errors="surrogatepass"))
    found = read_label_file(path)
    rows, count = found.rows, len(found.rows)
    assert rows.shape == (count, 5) and len(found.lines) == len(found.polygons) == count
    assert np.isfinite(rows).all() and (rows[:, 0] >= 0).all() and (rows[:, 0] % 1 == 0).all()
    assert ((rows[:, 1:] >= 0) & (rows[:, 1:] <= 1)).all() and (rows[:, 3:] > 0).all()
    assert all("\n" not in problem.text for problem in found.problems)


LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.dates(), st.binary(max_size=4),
    st.sampled_from(["train", ".", "..", "/", "~", "~nobody/x", "a\0b", "http://x", "x" * 300, "images/*.jpg"]),
)  # fmt: skip
TABLE_KEYS = st.one_of(st.integers(), st.text(max_size=4))
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TABLE_KEYS, inner, max_size=4)),
    max_leaves=6,
)
KEYS = st.one_of(
    st.sampled_from(["path", "train", "val", "test", "names", "nc", "download"]), st.text(max_size=4), st.integers()
)
SOUND = {"train": ".", "val": ".", "names": ["a", "b"]}
DATASETS = st.one_of(
    st.dictionaries(KEYS, VALUES, max_size=6).map(lambda changes: yaml.safe_dump(SOUND | changes, allow_unicode=True)),
    st.text(max_size=60),
    st.binary(max_size=60),
)


def check_dataset(content: str | bytes, folder: Path) -> None:
    """A dataset YAML of any content: a specification that keeps its promises, or one line."""
    path = folder / "d.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", errors="surrogatepass"))
    try:
        found = read_dataset_yaml(path)
    except UserError as error:
        one_line(error)
        return
    except OSError as error:  # a name too long for the file system; the scripts say so in one line
        assert error.filename
        return
    assert found.names and all(name.strip() for name in found.names)
    assert all(source.is_absolute() and source.exists() for source in (*found.train, *found.val, *found.test))


ARCHITECTURE = yaml.safe_load((REPOSITORY / "tests" / "exporting" / "small-detector.yaml").read_text(encoding="utf-8"))
SMALL = st.one_of(st.integers(-3, 12), st.sampled_from([64, 10**6, 10**9, 2**63, 10**30]))
NODES = st.one_of(
    SMALL, EDGES, st.booleans(), st.none(), st.lists(SMALL, max_size=4), st.text(max_size=6),
    st.sampled_from(["Conv", "SPDConv", "SPD", "C3", "SPPF", "Concat", "Detect", "nn.Upsample", "Focus", "nc"]),
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path to every value inside nested lists and tables."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, inner in entries for place in ((*path, key), *places(inner, (*path, key)))]


PLACES = places(ARCHITECTURE)
CHANGES = st.lists(st.tuples(st.sampled_from(PLACES), NODES), min_size=1, max_size=3)


def check_architecture(changes: list[tuple[tuple[Any, ...], Any]], folder: Path) -> None:
    """The small architecture with values replaced anywhere: a model, or one line that names the file."""
    values = copy.deepcopy(ARCHITECTURE)
    for place, value in changes:
        inner = values
        for key in place[:-1]:
            inner = inner[key] if isinstance(inner, dict) or (isinstance(inner, list) and key < len(inner)) else None
        if isinstance(inner, dict) or (isinstance(inner, list) and place[-1] < len(inner)):
            inner[place[-1]] = value
    path = folder / "a.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    try:
        architecture: Architecture = read_architecture(path)
        with torch.device("meta"):  # the same decisions, without the memory
            DetectionModel(architecture, class_count=3)
    except UserError as error:
        one_line(error)
        assert str(path) in str(error)


def _checkpoints() -> tuple[bytes, ...]:
    """A checkpoint in today's form and in the one before 1.6."""
    folder = Path(os.environ.get("TMPDIR", "/tmp"))
    path = write_small_checkpoint(folder / f"fuzz-{os.getpid()}.pt")
    content = path.read_bytes()
    path.unlink()
    stream = io.BytesIO()
    torch.save(torch.load(io.BytesIO(content), weights_only=True), stream, _use_new_zipfile_serialization=False)
    return content, stream.getvalue()


CHECKPOINTS = _checkpoints()
LARGEST_READING = 200_000  # KiB that reading a file of 100 KiB may take
EDITS = st.tuples(
    st.integers(0, 1),
    st.sampled_from(["set", "cut", "insert", "drop", "repeat"]),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
    st.booleans(),
)


def check_checkpoint(edit: tuple[int, str, list[tuple[float, int]], bool], folder: Path) -> None:
    """A checkpoint with its bytes changed: a model, or one line. ``True``: changed near its ends only."""
    which, kind, changes, near_ends = edit
    content = bytearray(CHECKPOINTS[which])
    for place, value in changes:
        span = min(len(content), 6000) if near_ends else len(content)
        at = int(place * span)
        at = at if not near_ends or value % 2 else max(len(content) - 1 - at, 0)
        if kind == "set":
            content[at : at + 1] = bytes([value])
        elif kind == "insert":
            content[at:at] = bytes([value]) * (1 + value % 5)
        elif kind == "drop":
            del content[at : at + 1 + value]
        elif kind == "repeat":
            content[at:at] = content[at : at + value]
    if kind == "cut":
        del content[int(changes[0][0] * len(content)) :]
    path = folder / "x.pt"
    path.write_bytes(bytes(content))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        build_model(read_weights(path))
    except UserError as error:
        one_line(error)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + LARGEST_READING


SIDES = st.one_of(st.integers(1, 40), st.integers(1, 3000), st.sampled_from([1, 2, 7680, 20000]))
FRAMES = st.tuples(SIDES, st.integers(1, 12), st.integers(1, 12), st.integers(1, 12), st.booleans(), st.booleans())


def check_letterbox(case: tuple[int, int, int, int, bool, bool], folder: Path) -> None:
    """Images of extreme proportions: the frame comes out, and boxes return to where they were."""
    long_side, short_side, rows, columns, upright, enlarge = case
    shape = (long_side, short_side) if upright else (short_side, long_side)
    network = FrameSize(rows * 32, columns * 32)
    image, transform = letterbox(np.zeros((*shape, 3), np.uint8), network, enlarge=enlarge)
    assert image.shape == (*network, 3) and transform.scale_x > 0 and transform.scale_y > 0
    box = np.array([[0, 0, shape[1], shape[0]]], dtype=np.float32)
    inside = transform.to_network(box)
    assert (inside >= -1e-3).all() and (inside[:, 2] <= network.width + 1e-3).all()
    np.testing.assert_allclose(transform.to_source(inside), box, rtol=1e-4, atol=1e-3)


FLOATS = st.one_of(
    st.floats(width=32), st.floats(0, 1, width=32),
    st.sampled_from([0.0, 1.0, -1.0, 1e-38, 1e20, -1e20, 3e38, -3e38, math.nan, math.inf, -math.inf]),
)  # fmt: skip
ROWS = st.tuples(
    st.lists(st.lists(FLOATS, min_size=8, max_size=8), max_size=12), st.booleans(), st.booleans(), st.integers(1, 5)
)


def check_suppression(case: tuple[list[list[float]], bool, bool, int], folder: Path) -> None:
    """Predictions of any numbers: at most ``max_det`` detections, best first, each above the threshold and finite."""
    values, multi_label, agnostic, most = case
    rows = torch.tensor(values, dtype=torch.float32).reshape(1, -1, 8)
    predictions = Predictions(rows[..., :4], rows[..., 4], rows[..., 5:])
    chosen = NmsSettings(0.25, 0.45, most, multi_label=multi_label, agnostic=agnostic)
    (found,) = non_max_suppression(predictions, chosen, FrameSize(64, 64))
    assert len(found.boxes) == len(found.scores) == len(found.classes) <= most
    scores = torch.as_tensor(found.scores)
    assert (scores > 0.25).all() and (scores.diff() <= 0).all()
    assert torch.isfinite(torch.as_tensor(found.boxes)).all() and torch.isfinite(scores).all()


HEAD = cast(Detect, small_model().head)
LOGITS = st.lists(
    st.one_of(st.floats(width=32, allow_nan=False), st.sampled_from([3e38, -3e38, 1e-45, math.inf, -math.inf])),
    min_size=8, max_size=8,
)  # fmt: skip


def check_decoding(row: list[float], folder: Path) -> None:
    """Logits of any size: finite boxes within the bounds of the formula, probabilities from 0 to 1."""
    levels = tuple(
        torch.tensor(row).expand(1, HEAD.anchor_count, 8 // (level + 1), 12 // (level + 1), 8) for level in range(2)
    )
    found = HEAD.decode(HeadMaps(levels))
    assert torch.isfinite(found.boxes).all()
    for share in (found.objectness, found.class_probs):
        assert ((share >= 0) & (share <= 1)).all()


TARGETS: dict[str, Target] = {
    "label parser": (LABEL_FILES, check_labels),
    "dataset YAML": (DATASETS, check_dataset),
    "architecture YAML": (CHANGES, check_architecture),
    "checkpoint reader": (EDITS, check_checkpoint),
    "letterbox": (FRAMES, check_letterbox),
    "non-maximum suppression": (ROWS, check_suppression),
    "decoding": (LOGITS, check_decoding),
}


def fuzz(target: str, folder: Path, *, examples: int, seed_number: int) -> None:
    """Draw ``examples`` cases from one seed and try each."""
    strategy, check = TARGETS[target]

    @seed(seed_number)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
        print_blob=True,
    )
    @given(strategy)
    def run(case: Any) -> None:
        check(case, folder)

    run()


ONCE_FAILED: tuple[tuple[str, Any], ...] = (
    # An overflown box came out with an infinite corner.
    ("non-maximum suppression", ([[0.0] * 8, [0.0, 0.0, 0.0, math.inf, 1.0, 0.0, 0.0, 1.0]], False, False, 1)),
    # Python reads 0_1 as 1.
    ("label parser", "0 0.5 0.5 0.2 0_1"),
    # 2**63 anchors per level were made one after the other.
    ("architecture YAML", [(("anchors",), 2**63)]),
    # A line break in a module's name broke the message in two.
    ("architecture YAML", [(("head", 0, 2), "\n")]),
    # datetime's ValueError came through.
    ("dataset YAML", "x: 2024-99-99\n"),
)


@pytest.mark.slow
@pytest.mark.parametrize(("target", "case"), ONCE_FAILED)
def test_what_once_failed(target: str, case: Any, tmp_path: Path) -> None:
    TARGETS[target][1](case, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "target",
    [
        pytest.param(name, marks=pytest.mark.case("Fuzzing", name, "100 drawn cases: a sound result or one line"))
        for name in TARGETS
    ],
)
def test_short(target: str, tmp_path: Path) -> None:
    fuzz(target, tmp_path, examples=100, seed_number=0)


@pytest.mark.acceptance
@pytest.mark.parametrize(
    "target",
    [
        pytest.param(
            name, marks=pytest.mark.case("Fuzzing", f"{name}, long", "ten minutes of drawn cases, fresh seeds")
        )
        for name in TARGETS
    ],
)
def test_long(target: str, tmp_path: Path) -> None:
    end = time.monotonic() + 60 * MINUTES
    rounds = 0
    while time.monotonic() < end:
        number = random.SystemRandom().randrange(2**32)
        print(f"{target}: seed {number}")
        fuzz(target, tmp_path, examples=500, seed_number=number)
        rounds += 1
    assert rounds
