"""Free memory out of the kernel's tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from utils.dataset.image_cache import free_memory

MACHINE = 8_000_000 * 1024  # bytes
MEMINFO = "MemTotal:       16000000 kB\nMemFree:  1000 kB\nMemAvailable:    8000000 kB\nHugePages_Total:       0\n"


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
