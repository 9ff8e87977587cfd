"""Failures of the machine in the middle of work, told in one line instead of a library's traceback."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
from torch.distributed import DistBackendError

from utils.user_error import UserError

# torch has a class of its own for CUDA only; of the CPU's allocator and of a lost worker it says this.
_NO_MEMORY = re.compile(r"out of memory|not enough memory|can't allocate memory|insufficient memory", re.IGNORECASE)
_LOST_PROCESS = re.compile(r"gloo|nccl", re.IGNORECASE)
_LOST_WORKER = re.compile(r"DataLoader worker \(pid\(?s?\)? ([\d, ]+)\)")


@contextmanager
def explained_failures(batch_size: int, imgsz: object) -> Iterator[None]:
    """Turn lack of memory and killed loading processes into a line that names what to change.

    Raises:
        UserError: naming batch and size, or the process that was killed. Other errors pass.
    """
    try:
        yield
    except (MemoryError, RuntimeError, cv2.error) as error:
        text = str(error)
        if isinstance(error, MemoryError) or _NO_MEMORY.search(text):
            raise UserError(
                f"out of memory with --batch-size {batch_size} and --imgsz {imgsz}; take a smaller one of the two"
            ) from error
        lost = _LOST_WORKER.search(text)
        if lost:
            raise UserError(_lost_line(f" ({lost[1].strip()})")) from error
        if isinstance(error, DistBackendError) or _LOST_PROCESS.search(text):
            raise UserError("another process of this run ended; its own message says why") from error
        raise
    # A process that is killed while it hands a batch over is noticed by its broken connection first.
    except (ConnectionResetError, ConnectionRefusedError, EOFError) as error:
        raise UserError(_lost_line("")) from error


def _lost_line(process: str) -> str:
    return f"a loading process{process} was killed, often for lack of memory; take fewer --workers"
