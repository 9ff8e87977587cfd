"""What of a data set a run does not use: one line in the log, every file and row in the run's folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from utils.dataset.label_index import LabelIndex
from utils.runtime.atomic_files import write_text

LOGGER = logging.getLogger(__name__)
FILE_NAME = "problems.txt"


def report_problems(folder: Path, splits: Mapping[str, LabelIndex]) -> None:
    """Log what each split holds; list files and rows that are left out in ``folder/problems.txt``, if there are any."""
    for name, index in splits.items():
        LOGGER.info("%s: %s", name, index.summary())
    problems = list(dict.fromkeys(str(problem) for index in splits.values() for problem in index.problems))
    if problems:
        text = "".join(f"{' '.join(line.split())}\n" for line in problems)
        write_text(folder / FILE_NAME, text)
        LOGGER.warning("%d problems in the data set are listed in %s", len(problems), folder / FILE_NAME)
