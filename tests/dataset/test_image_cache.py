"""Files of decoded images: who reads one keeps it, whoever else trains on the same images. Free memory for them."""

from __future__ import annotations

import copy
import fcntl
from pathlib import Path

import numpy as np
import pytest

from tests.small_dataset import write_small_dataset
from utils.dataset.detection_dataset import DetectionDataset, open_dataset
from utils.dataset.image_cache import MappedImages, cached_dataset, free_memory, image_layout
from utils.dataset.image_files import read_image

AREA = "Image caches"
MACHINE = 8_000_000 * 1024  # bytes
MEMINFO = "MemTotal:       16000000 kB\nMemFree:  1000 kB\nMemAvailable:    8000000 kB\nHugePages_Total:       0\n"


@pytest.fixture
def split(tmp_path: Path) -> DetectionDataset:
    write_small_dataset(tmp_path, train=2, val=1)
    return open_dataset([tmp_path / "images" / "train"], ("red", "green", "blue"))


def caches(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.cache.bin"))


@pytest.mark.case(AREA, "one split kept at two sizes", "both caches stay as long as they are in use")
def test_a_split_kept_at_two_sizes_at_once(split: DetectionDataset, tmp_path: Path) -> None:
    reduced = cached_dataset(split, "disk", long_side=64)
    whole = cached_dataset(split, "disk")
    assert reduced.source_image(1).shape == (48, 64, 3)
    np.testing.assert_array_equal(whole.source_image(1), read_image(split.index.paths[1]))
    assert len(caches(tmp_path)) == 2


@pytest.mark.case(AREA, "a cache that another process reads", "it is left where it is; once unused it is removed")
def test_another_reader_and_then_none(split: DetectionDataset, tmp_path: Path) -> None:
    cached_dataset(split, "disk", long_side=64)
    (first,) = caches(tmp_path)
    with first.open("rb") as reader:  # as another process would hold it
        fcntl.flock(reader, fcntl.LOCK_SH)
        cached_dataset(split, "disk", long_side=32)
        assert first.is_file() and len(caches(tmp_path)) == 2
    whole = cached_dataset(split, "disk")
    assert caches(tmp_path) == [whole._cache.file]  # type: ignore[union-attr]


@pytest.mark.case(AREA, "a cache file removed by hand in a run", "the run goes on reading it")
def test_a_removed_file_is_still_read(split: DetectionDataset, tmp_path: Path) -> None:
    kept = cached_dataset(split, "disk")
    before = kept.source_image(0).copy()
    for file in caches(tmp_path):
        file.unlink()
    np.testing.assert_array_equal(kept.source_image(0), before)


def test_a_worker_that_is_not_forked_opens_the_file_again(split: DetectionDataset, tmp_path: Path) -> None:
    kept = cached_dataset(split, "disk")
    (file,) = caches(tmp_path)
    own = copy.copy(MappedImages(image_layout(split.index.sizes, None), file))  # as pickle would
    np.testing.assert_array_equal(own.image(1), kept.source_image(1))


@pytest.fixture
def meminfo(tmp_path: Path) -> Path:
    path = tmp_path / "meminfo"
    path.write_text(MEMINFO)
    return path


def test_the_machines_own_is_what_is_available(meminfo: Path, tmp_path: Path) -> None:
    assert free_memory(meminfo, tmp_path / "none") == MACHINE


@pytest.mark.parametrize(
    ("limit", "used", "expected"),
    [
        ("max", 5000, MACHINE),
        ("1000000", 300_000, 700_000),
        ("1000000", 1_200_000, 0),  # over its limit for a moment
        (str(2**62), 5000, MACHINE),  # a limit beyond the machine
    ],
)
@pytest.mark.parametrize(
    ("limit_file", "used_file"),
    [("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")],
)
def test_a_container_leaves_what_its_limit_leaves(
    meminfo: Path, tmp_path: Path, limit: str, used: int, expected: int, limit_file: str, used_file: str
) -> None:
    group = tmp_path / "group"
    (group / "memory").mkdir(parents=True)
    (group / limit_file).write_text(f"{limit}\n")
    (group / used_file).write_text(f"{used}\n")
    assert free_memory(meminfo, group) == expected


def test_without_the_kernels_table_pages_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sysconf", {"SC_AVPHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}.__getitem__)
    assert free_memory(tmp_path / "none", tmp_path / "none") == 4_096_000
