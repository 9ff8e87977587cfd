"""Other data sets' annotation formats to YOLO label files: the formats by name, and a conversion in place.

From the command line: ``python -m utils.dataset.converters FORMAT FOLDER``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from utils.dataset.converters.aerial_images import read_dota, read_visdrone, read_xview
from utils.dataset.converters.label_writing import PartSummary, Reader, SourceSettings, write_labels
from utils.dataset.converters.photographs import read_coco, read_sku110k, read_voc

FORMATS: Mapping[str, Reader] = {
    "coco": read_coco,
    "dota": read_dota,
    "sku110k": read_sku110k,
    "visdrone": read_visdrone,
    "voc": read_voc,
    "xview": read_xview,
}


def convert_in_place(format_name: str, root: Path, names: tuple[str, ...]) -> list[PartSummary]:
    """Write the label files of a data set of this format beside its images."""
    return write_labels(FORMATS[format_name](SourceSettings(root, names)))
