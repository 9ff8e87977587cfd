"""Optional reference data: real images, official weights, figures of the original programs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("SPD_SHARED", REPOSITORY.parent / "shared")).resolve()

needs_shared = pytest.mark.skipif(
    not (SHARED / "reference").is_dir(),
    reason=f"reference data is not at {SHARED} (set SPD_SHARED to its folder)",
)
