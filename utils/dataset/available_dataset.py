"""A data set on this machine: complete as it is, or made so by the command that fetches and converts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from utils.config.dataset_file import REPOSITORY, find_dataset_yaml
from utils.config.dataset_yaml import DatasetSpec, read_dataset_yaml
from utils.dataset.image_lists import label_path, list_images
from utils.user_error import UserError

UNFINISHED = ".unfinished-download"  # folder in the data set's own while it is fetched; has what is fetched so far
CHECKED = 50  # images of the training part whose label files are looked for


def available_dataset(name: str | Path) -> DatasetSpec:
    """The data set of a YAML (`find_dataset_yaml`), on this machine.

    Where its training or validation part is missing and the YAML has ``download:``, or label files are missing and it
    has ``convert:``, `utils.dataset.dataset_download` runs first, as a program of its own: neither downloads nor other
    data sets' formats belong to a program that trains or evaluates.

    Parts may be missing after all: `DatasetSpec.having` those that are needed.

    Raises:
        UserError: a wrong YAML, a download or conversion that fails.
    """
    file = find_dataset_yaml(name)
    spec = read_dataset_yaml(file, quiet=True)
    if (spec.download and lacks_files(spec)) or lacks_labels(spec):
        paths = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
        command = [sys.executable, "-m", "utils.dataset.dataset_download", str(file)]
        code = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, check=False).returncode
        if code:  # it has said why, unless it was killed
            raise UserError(f"{file}: the program that fetches it was ended by signal {-code}" if code < 0 else "")
    return read_dataset_yaml(file)


def lacks_files(spec: DatasetSpec) -> bool:
    """Whether the training or validation part is missing, or only the first of it was fetched."""
    parts = (*spec.train, *spec.val)
    return (spec.root / UNFINISHED / "files").is_dir() or not all(part.exists() for part in parts)


def lacks_labels(spec: DatasetSpec) -> bool:
    """Whether the format's own annotations are there and the label files, lists or regions made of them are not."""
    if spec.convert is None or not spec.root.is_dir():
        return False
    made = (*spec.train, *spec.val, *(spec.annotations[part] for part in spec.annotations))
    if not all(path.exists() for path in made):
        return True
    return not any(label_path(image).exists() for image in list_images(spec.train, spec.root)[:CHECKED])
