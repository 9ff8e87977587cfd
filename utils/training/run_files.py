"""Files of a run that a later write must not cost: the checkpoint before the last, and what an older run left."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

LOGGER = logging.getLogger(__name__)
PREVIOUS = "last.prev.pt"
OF_ONE_RUN = (
    "weights/last.pt",
    "weights/last.prev.pt",
    "weights/best.pt",
    "results.csv",
    "metrics.json",
    "problems.txt",
)


def keep_previous(last: Path) -> None:
    """Keep the checkpoint under ``last``, if there is one, as ``last.prev.pt`` beside it."""
    if not last.is_file():
        return
    waiting = last.with_name(f".{PREVIOUS}")
    waiting.unlink(missing_ok=True)
    try:
        os.link(last, waiting)
    except OSError:  # a file system without hard links
        shutil.copyfile(last, waiting)
    waiting.replace(last.with_name(PREVIOUS))


def previous_of(checkpoint: Path) -> Path | None:
    """The checkpoint kept beside a ``last.pt``."""
    kept = checkpoint.with_name(PREVIOUS)
    return kept if checkpoint.name == "last.pt" and kept.is_file() else None


def set_aside_older_run(folder: Path) -> None:
    """Rename what an older run left (``--exist-ok``) to ``*.older``, so that nothing of it passes for new."""
    aside = [folder / name for name in OF_ONE_RUN if (folder / name).is_file()]
    for path in aside:
        path.replace(path.with_name(f"{path.name}.older"))
    if aside:
        LOGGER.warning("%s: files of an older run are kept as *.older", folder)


def remove_unfinished(folder: Path) -> None:
    """Delete checkpoints that a killed process had not written to their end; nobody else may be writing there."""
    for path in (folder / "weights").glob(".*.pt.*"):
        path.unlink()
