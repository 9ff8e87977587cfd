"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that appears under ``path`` only when it was written whole and is on the disk.

    A reader sees the old file or the new one. On any failure the old one stays and the temporary one goes.
    """
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as temporary:
        try:
            yield temporary
            temporary.flush()
            os.fsync(temporary.fileno())
            # NamedTemporaryFile is private to its owner; a run's results are as readable as any new file.
            os.fchmod(temporary.fileno(), 0o666 & ~_umask())
            Path(temporary.name).replace(path)
        finally:
            Path(temporary.name).unlink(missing_ok=True)  # is there only if something above failed


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with atomic_file(path) as file:
        file.write(text.encode("utf-8", errors="backslashreplace"))  # file names need not be valid text
