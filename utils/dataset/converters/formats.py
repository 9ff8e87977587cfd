"""The formats by name, and the conversion of a data set where it lies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from utils.dataset.converters.annotated_images import Reader, SourceSettings
from utils.dataset.converters.coco import read_coco
from utils.dataset.converters.dota import read_dota
from utils.dataset.converters.label_writing import PartSummary, write_labels
from utils.dataset.converters.sku110k import read_sku110k
from utils.dataset.converters.visdrone import read_visdrone
from utils.dataset.converters.voc import read_voc
from utils.dataset.converters.xview import read_xview

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
