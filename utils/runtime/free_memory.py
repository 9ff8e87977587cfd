"""How much memory a process may still take."""

from __future__ import annotations

import os
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_GROUP = Path("/sys/fs/cgroup")


def free_memory(meminfo: Path = _MEMINFO, group: Path = _GROUP) -> int:
    """Bytes available without swapping: the machine's, or what the container's limit (cgroup) leaves if that is less.

    Args:
        meminfo: the kernel's table; where there is none (not Linux), free physical pages are counted.
        group: folder of the process's control group, version 2 or 1.
    """
    if meminfo.is_file():
        table = dict(line.split(":", 1) for line in meminfo.read_text(encoding="ascii").splitlines() if ":" in line)
        machine = int(table["MemAvailable"].split()[0]) * 1024
    else:
        machine = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit, used in (
        (group / "memory.max", group / "memory.current"),
        (group / "memory" / "memory.limit_in_bytes", group / "memory" / "memory.usage_in_bytes"),
    ):
        if limit.is_file() and used.is_file():
            most = limit.read_text(encoding="ascii").strip()
            if most != "max":
                return max(min(machine, int(most) - int(used.read_text(encoding="ascii"))), 0)
    return machine
