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

# A process that is killed while it hands a batch over is noticed by its broken connection first.
_OF_CONNECTIONS = (ConnectionResetError, ConnectionRefusedError, EOFError)
_EXPLAINED = (MemoryError, RuntimeError, cv2.error, *_OF_CONNECTIONS)


def is_lost_loader(error: Exception) -> bool:
    """Whether an error says that a loading process has ended."""
    return isinstance(error, _OF_CONNECTIONS) or (
        isinstance(error, RuntimeError) and _LOST_WORKER.search(str(error)) is not None
    )


@contextmanager
def explained_failures(batch_size: int, imgsz: object) -> Iterator[None]:
    """Turn lack of memory and killed loading processes into a line that names what to change.

    Raises:
        UserError: naming batch and size, or the process that was killed. Other errors pass.
    """
    try:
        yield
    except _EXPLAINED as error:
        if line := _line(error, f"--batch-size {batch_size} and --imgsz {imgsz}"):
            raise UserError(line) from error
        raise


@contextmanager
def own_failures(name: str) -> Iterator[None]:
    """For foreign code, called ``name``, inside of `explained_failures`, where its errors would be taken for others.

    Raises:
        UserError: naming it, for such an error, and for one of files and connections. Other errors pass.
    """
    try:
        yield
    except (*_EXPLAINED, OSError) as error:
        if _line(error, "") or isinstance(error, OSError):
            raise UserError(f"{name}: {type(error).__name__}{f': {error}' if str(error) else ''}") from error
        raise


def _line(error: Exception, sizes: str) -> str:
    """What to change; nothing for an error of another kind."""
    text = str(error)
    if isinstance(error, MemoryError) or _NO_MEMORY.search(text):
        return f"out of memory with {sizes}; take a smaller one of the two"
    if is_lost_loader(error):
        lost = _LOST_WORKER.search(text)
        process = f" ({lost[1].strip()})" if lost else ""
        return f"a loading process{process} was killed, often for lack of memory; take fewer --workers"
    if isinstance(error, DistBackendError) or _LOST_PROCESS.search(text):
        return "another process of this run ended; its own message says why"
    return ""
