"""One pretended GPU for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cuda.pretended import PretendedGpu
from tests.cuda.workplace import fill


@pytest.fixture(scope="session")
def gpu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PretendedGpu]:
    """Its folder is filled by `workplace`."""
    folder = tmp_path_factory.mktemp("cuda")
    fill(folder)
    with PretendedGpu(folder) as machine:
        yield machine
