"""A ``.pt`` file written anew with what inference needs (``detect.py --update``)."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from models.weights import checkpoint_fields, load_model
from utils.runtime.atomic_files import atomic_file

LOGGER = logging.getLogger(__name__)


def strip_weights(path: Path) -> None:
    """Replace the file by this program's checkpoint of its model: the averaged weights, no optimizer, no records.

    Raises:
        UserError: no readable detector; the file stays as it was.
        OSError: it cannot be written; the file stays as it was.
    """
    before = path.stat().st_size
    content = checkpoint_fields(load_model(path))
    with atomic_file(path) as file:
        torch.save(content, file)
    after = path.stat().st_size
    LOGGER.info("%s: written anew, weights only: %.1f MB, was %.1f MB", path, after / 1e6, before / 1e6)
