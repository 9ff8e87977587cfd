"""An unpickler that never imports or runs what a file names.

A pickle is a program. Every name that it asks for is answered out of a short list: plain containers, records that say
which bytes form a tensor, and stand-ins that only keep the attributes they are given. Any other name is refused.
"""

from __future__ import annotations

import pickle
import pickletools
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch

STORAGE_TYPES: dict[str, torch.dtype] = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
CONTAINERS: dict[tuple[str, str], type] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("__builtin__", "set"): set,
    ("builtins", "set"): set,
    ("__builtin__", "dict"): dict,
    ("builtins", "dict"): dict,
    ("torch", "Size"): tuple,
}
# Where the classes of YOLOv5's models, and of YOLOv5u's, which another program writes, are said to live.
MODULE_PLACES = re.compile(
    r"torch\.nn\.modules\.\w+|models\.(?:common|yolo|experimental)|ultralytics\.(?:nn|utils)(?:\.\w+)*"
)
# Values that trained checkpoints carry along and that no reader here needs.
IGNORED_NAMES = frozenset(
    {("_codecs", "encode"), ("argparse", "Namespace"), ("torch", "device"), ("numpy", "dtype"), ("numpy", "ndarray")}
    | {("numpy", f"{kind}{bits}") for kind in ("float", "int", "uint") for bits in (8, 16, 32, 64)}
    | {
        (f"numpy.{core}.multiarray", name)
        for core in ("core", "_core")
        for name in ("scalar", "_reconstruct", "_frombuffer")
    }
    | {
        (place, f"{pure}{system}Path")
        for place in ("pathlib", "pathlib._local")
        for pure in ("", "Pure")
        for system in ("", "Posix", "Windows")
    }
    | {("torch", name) for name in ("float16", "float32", "float64", "bfloat16", "int64", "int32", "uint8", "bool")}
)


@dataclass(frozen=True, slots=True)
class StorageType:
    """The element type that a storage class of torch stands for."""

    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class StorageRecord:
    """A run of ``elements`` values, found in the file under ``key``, from the ``start``-th on."""

    key: str
    dtype: torch.dtype
    elements: int
    start: int = 0


@dataclass(frozen=True, slots=True)
class TensorRecord:
    """A tensor as the file describes it; its bytes are read only when it is asked for."""

    storage: StorageRecord
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class StandIn:
    """Takes the place of an object of the file: keeps its attributes, does nothing."""

    path = ""

    def __init__(self, *arguments: object) -> None:
        self.attributes: dict[str, Any] = {}

    def __setstate__(self, state: object) -> None:
        self.attributes = {str(k): v for k, v in state.items()} if isinstance(state, dict) else {}


class Ignored:
    """Takes the place of a value that is not needed; swallows whatever the pickle does to it."""

    def __init__(self, *arguments: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, value: object) -> None:
        pass


MEMO_OPERATIONS = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})


class RefusedNameError(Exception):
    """The file asks for a name outside the list."""


class RestrictedUnpickler(pickle.Unpickler):
    """Unpickler whose every global is answered from the lists above."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(stream, encoding="utf-8")
        self._stream = stream
        self._stand_ins: dict[str, type[StandIn]] = {}
        # Bound methods of this reader, so that a file cannot attach state to anything that outlives the reading.
        self._rebuilders: dict[str, Callable[..., object]] = {
            "_rebuild_tensor": self._tensor,
            "_rebuild_tensor_v2": self._tensor,
            "_rebuild_parameter": self._parameter,
            "_rebuild_parameter_with_state": self._parameter,
        }

    def load(self) -> Any:
        """The next pickle of the stream.

        The memo of ``pickle.Unpickler`` is an array as long as the largest number that the file gives to an object:
        six bytes can ask for more memory than there is. Writers count up from 0 or 1, so numbers beyond the count of
        operations are refused before anything is read.
        """
        start = self._stream.tell()
        for count, (operation, argument, _) in enumerate(pickletools.genops(self._stream), start=1):
            if operation.name in MEMO_OPERATIONS and isinstance(argument, int) and argument > count:
                raise pickle.UnpicklingError(f"object {count} is to be remembered as number {argument}")
        self._stream.seek(start)
        return super().load()

    def find_class(self, module: str, name: str) -> Any:
        place = (module, name)
        if place in CONTAINERS:
            return CONTAINERS[place]
        if module == "torch._utils" and name in self._rebuilders:
            return self._rebuilders[name]
        if module == "torch" and name in STORAGE_TYPES:
            return StorageType(STORAGE_TYPES[name])
        if place in IGNORED_NAMES:
            return type("Ignored", (Ignored,), {})
        if MODULE_PLACES.fullmatch(module) and re.fullmatch(r"[A-Za-z_]\w*", name):
            path = f"{module}.{name}"
            return self._stand_ins.setdefault(path, type("StandIn", (StandIn,), {"path": path}))
        raise RefusedNameError(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        """A storage ``("storage", type, key, device, elements[, view])`` or a class ``("module", class, ...)``.

        ``view`` is ``(key, first element, elements)`` of a storage that is a part of another, in old files.
        """
        if isinstance(pid, tuple) and pid[:1] == ("module",) and len(pid) > 1:
            return pid[1]
        kind, storage_type, key, _, elements = pid[:5]
        if kind != "storage" or not isinstance(storage_type, StorageType) or type(elements) is not int:
            raise pickle.UnpicklingError("a reference to something else than a storage")
        start, length = (pid[5][1], pid[5][2]) if len(pid) > 5 and pid[5] is not None else (0, elements)
        if type(start) is not int or type(length) is not int or not 0 <= start <= start + length <= elements:
            raise pickle.UnpicklingError("a part of a storage that lies outside of it")
        return StorageRecord(str(key), storage_type.dtype, length, start)

    def _tensor(self, storage: object, offset: object, size: object, stride: object, *ignored: object) -> TensorRecord:
        if not (
            isinstance(storage, StorageRecord)
            and isinstance(offset, int)
            and isinstance(size, tuple)
            and isinstance(stride, tuple)
            and len(size) == len(stride)
            and all(isinstance(each, int) and each >= 0 for each in (offset, *size, *stride))
        ):
            raise pickle.UnpicklingError("a tensor without storage, size and stride")
        return TensorRecord(storage, offset, size, stride)

    def _parameter(self, data: object, *ignored: object) -> object:
        return data
