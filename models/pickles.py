"""Restricted reader of ``.pt`` files: nothing that a file names is ever imported or run.

YOLOv5 publishes its weights as pickled modules. This reader gives their tensors, attributes and plain values back
without running anything (see models/restricted_unpickler.py). It opens this project's own checkpoints too, which hold
tensors and plain values only.

Formats: a zip archive ``<root>/data.pkl`` and ``<root>/data/<key>`` raw little-endian storages (torch.save since 1.6),
and the two older ones of models/legacy_files.py.
"""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.legacy_files import StorageSource, read_legacy_stream, read_legacy_tar
from models.restricted_unpickler import RefusedNameError, RestrictedUnpickler, StandIn, TensorRecord
from utils.user_error import UserError

# What unpickling damaged or hostile bytes can raise, besides the refusals of this module.
DAMAGE = (
    pickle.UnpicklingError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    RuntimeError,
    OverflowError,
    ImportError,
    MemoryError,
    OSError,
    NotImplementedError,
    struct.error,
    tarfile.TarError,
    zipfile.BadZipFile,
)
MODULE_DEPTH_LIMIT = 40
VALUE_LIMIT = 200_000  # a few nested references can spell more values than any memory holds


class _ZipStorages:
    """Stays open until it is collected: a model has hundreds of storages, and opening reads the whole directory."""

    def __init__(self, path: Path, root: str) -> None:
        self._archive, self._root = zipfile.ZipFile(path), root

    def read(self, key: str) -> bytes:
        return self._archive.read(f"{self._root}data/{key}")


class PickledFile:
    """What a ``.pt`` file holds: ``content`` of plain containers, stand-ins and tensor records."""

    def __init__(self, path: Path, content: Any, storages: StorageSource) -> None:
        self.path, self.content, self._storages = path, content, storages
        self._values_left = VALUE_LIMIT

    def tensor(self, record: TensorRecord) -> Tensor:
        """The tensor of a record, floating point as float32, contiguous, owning its memory."""
        try:
            raw = bytearray(self._storages.read(record.storage.key))
            flat = torch.frombuffer(raw, dtype=record.storage.dtype) if raw else torch.empty(0)
            first = record.storage.start + record.offset
            spanned = first + sum((n - 1) * step for n, step in zip(record.size, record.stride, strict=True)) + 1
            count = 1
            for length in record.size:
                count *= length
            # A stride of zero would let a few bytes claim any size.
            if count and (spanned > len(flat) or count > len(flat)):
                raise ValueError(f"a tensor of size {record.size} in a storage of {len(flat)} values")
            view = torch.as_strided(flat.to(record.storage.dtype), record.size, record.stride, first)
        except DAMAGE as error:
            raise damaged(self.path, error) from error
        return view.float().clone() if view.is_floating_point() else view.clone()

    def plain(self, value: Any, depth: int = 0) -> Any:
        """``value`` with every record replaced by its tensor; stand-ins and ignored values become None."""
        self._count(depth)
        if isinstance(value, TensorRecord):
            return self.tensor(value)
        if isinstance(value, dict):
            return {key: self.plain(each, depth + 1) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.plain(each, depth + 1) for each in value]
        return value if value is None or isinstance(value, (bool, int, float, str)) else None

    def _count(self, depth: int) -> None:
        self._values_left -= 1
        if depth > MODULE_DEPTH_LIMIT or self._values_left < 0:
            raise UserError(f"{self.path}: refused, nested too deep or too often for a checkpoint")

    def state_dict(self, module: StandIn) -> dict[str, Tensor]:
        """Parameters and buffers of a pickled module by their dotted names, as ``nn.Module.state_dict`` would give."""
        found: dict[str, Tensor] = {}
        self._collect(module, "", found)
        return found

    def _collect(self, module: StandIn, prefix: str, found: dict[str, Tensor]) -> None:
        self._count(prefix.count("."))
        volatile = module.attributes.get("_non_persistent_buffers_set")
        for group in ("_parameters", "_buffers"):
            for name, record in _mapping(module.attributes.get(group)).items():
                if isinstance(record, TensorRecord) and not (isinstance(volatile, set) and name in volatile):
                    found[f"{prefix}{name}"] = self.tensor(record)
        for name, child in _mapping(module.attributes.get("_modules")).items():
            if isinstance(child, StandIn):
                self._collect(child, f"{prefix}{name}.", found)


def _mapping(value: object) -> Mapping[Any, Any]:
    return value if isinstance(value, dict) else {}


def damaged(path: Path, error: BaseException) -> UserError:
    """The line for a file that breaks off or contradicts itself."""
    return UserError(
        f"{path}: not a readable checkpoint ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    )


def read_pickled(path: Path) -> PickledFile:
    """Opens a ``.pt`` file without running anything in it.

    UserError in one line: the file is missing, damaged, or asks for a name outside the list (the line says which).
    """
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint")
    try:
        if zipfile.is_zipfile(path):
            return _read_zip(path)
        legacy = read_legacy_tar(path) if tarfile.is_tarfile(path) else read_legacy_stream(path)
        return PickledFile(path, *legacy)
    except RefusedNameError as refusal:
        raise UserError(f"{path}: refused, the file asks for '{refusal}', which no weights need") from refusal
    except DAMAGE as error:
        raise damaged(path, error) from error


def _read_zip(path: Path) -> PickledFile:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(names) != 1:
            raise UserError(f"{path}: not a checkpoint (a zip archive without data.pkl)")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise UserError(f"{path}: refused, a checkpoint's entries are stored, these are compressed")
        root = names[0].removesuffix("data.pkl")
        if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
            raise UserError(f"{path}: written on a big-endian machine, which is not supported")
        content = RestrictedUnpickler(io.BytesIO(archive.read(names[0]))).load()
    return PickledFile(path, content, _ZipStorages(path, root))
