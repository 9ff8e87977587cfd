"""Checkpoints as YOLOv5's releases write them, made from a model of ours and classes that only bear the names.

Every fixture class is written as the global that its name says; nothing of the original programs is needed.
"""

from __future__ import annotations

import argparse
import io
import pickle
import struct
import tarfile
from collections import OrderedDict
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from models.yolo import DetectionModel


class Named:
    """An object that pickles as an instance of the class its type is labelled with."""

    label = ""


def instance(label: str, **attributes: Any) -> Named:
    """An object whose pickle says that it is a ``label``, such as ``models.common.Conv``."""
    made: Named = type("Named", (Named,), {"label": label})()
    made.__dict__.update(attributes)
    return made


class NamingPickler(pickle._Pickler):  # the Python one: its save_global can be told another name
    def save_global(self, obj: Any, name: str | None = None) -> None:
        if isinstance(obj, type) and issubclass(obj, Named):
            module, _, attribute = obj.label.rpartition(".")
            self.write(pickle.GLOBAL + f"{module}\n{attribute}\n".encode())  # type: ignore[attr-defined]
            self.memoize(obj)  # type: ignore[attr-defined]
        else:
            super().save_global(obj, name)  # type: ignore[misc]


def dump(value: Any, stream: Any, protocol: int = 2) -> None:
    NamingPickler(stream, protocol).dump(value)


NAMING = SimpleNamespace(Pickler=NamingPickler, dump=dump, __name__="pickle")


def write_zip(value: Any, path: Path) -> None:
    torch.save(value, path, pickle_module=NAMING)


def write_stream(value: Any, path: Path) -> None:
    """The format of torch before 1.6."""
    torch.save(value, path, pickle_module=NAMING, _use_new_zipfile_serialization=False)


def write_tar(value: Any, path: Path) -> None:
    """The tar of torch before 0.1.10: storages, tensors, and a pickle that refers to both by number."""
    tensors: list[torch.Tensor] = []

    class TarPickler(NamingPickler):
        def persistent_id(self, obj: Any) -> Any:
            if isinstance(obj, torch.Tensor):
                tensors.append(obj.detach().contiguous())
                return 1000 + len(tensors)
            return None

    body = io.BytesIO()
    TarPickler(body, 2).dump(value)
    kinds = {torch.float16: "HalfStorage", torch.float32: "FloatStorage", torch.int64: "LongStorage"}
    storages, descriptions = io.BytesIO(), io.BytesIO()
    dump(len(tensors), storages)
    dump(len(tensors), descriptions)
    for number, tensor in enumerate(tensors, start=1):
        kind = type("Named", (Named,), {"label": f"torch.{kinds[tensor.dtype]}"})
        dump((number, "cpu", kind), storages)
        storages.write(struct.pack("<q", tensor.numel()) + tensor.numpy().tobytes())
        dump((1000 + number, number, kind), descriptions)
        shape = (*tensor.shape, *tensor.stride(), 0)
        descriptions.write(struct.pack(f"<ii{len(shape)}q", tensor.dim(), 0, *shape))
    dump([], storages)
    with tarfile.open(path, "w") as archive:
        for name, stream in (("storages", storages), ("tensors", descriptions), ("pickle", body)):
            entry = tarfile.TarInfo(name)
            entry.size = stream.tell()
            stream.seek(0)
            archive.addfile(entry, stream)


WRAPPED = {nn.Sequential: "container", nn.ModuleList: "container", nn.Conv2d: "conv", nn.BatchNorm2d: "batchnorm"} | {
    nn.SiLU: "activation",
    nn.LeakyReLU: "activation",
    nn.Hardswish: "activation",
    nn.MaxPool2d: "pooling",
    nn.Upsample: "upsampling",
    nn.Identity: "linear",
}


def pickled_module(module: nn.Module, place: str = "models.common") -> Named:
    """``module`` and what it holds as instances of classes of YOLOv5's names, fp16 as in the releases."""
    kind = type(module)
    label = f"torch.nn.modules.{WRAPPED[kind]}.{kind.__name__}" if kind in WRAPPED else f"{place}.{kind.__name__}"
    buffers = {
        name: each.half() if each.is_floating_point() else each.clone()
        for name, each in module._buffers.items()
        if each is not None
    }
    parameters = {
        name: None if each is None else nn.Parameter(each.detach().half(), requires_grad=False)
        for name, each in module._parameters.items()
    }
    return instance(
        label,
        training=False,
        _parameters=OrderedDict(parameters),
        _buffers=OrderedDict(buffers),
        _non_persistent_buffers_set=set(),
        _backward_hooks=OrderedDict(),
        _forward_hooks=OrderedDict(),
        _modules=OrderedDict((name, pickled_module(child)) for name, child in module.named_children()),
        **({"negative_slope": module.negative_slope} if isinstance(module, nn.LeakyReLU) else {}),
    )


def pickled_detector(model: DetectionModel, *, root: str = "models.yolo.Model", names: Any = None) -> Named:
    """The detector as a release's class ``root``: architecture under ``yaml``, strides, names."""
    layers = pickled_module(nn.Sequential(*model.model))
    head = list(layers.__dict__["_modules"].values())[-1]
    type(head).label = "models.yolo.Detect"
    strides = torch.tensor(model.strides).float()
    head.__dict__.update(nc=model.class_count, stride=strides.half(), inplace=True, i=len(model.model) - 1)
    values = model.architecture.as_dict()
    for key in ("activation", "channel_multiple"):
        del values[key]
    return instance(
        root,
        training=False,
        _parameters=OrderedDict(),
        _buffers=OrderedDict(),
        _modules=OrderedDict(model=layers),
        yaml_file="some.yaml",
        yaml={**values, "ch": 3},
        save=[4, 6],
        names=list(model.names) if names is None else names,
        stride=strides,
        hyp={"lr0": 0.01},
    )


def training_state() -> dict[str, Any]:
    """What a run in progress keeps beside its model."""
    return {
        "epoch": 7,
        "best_fitness": np.float64(0.31),
        "updates": 12,
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": np.float32(0.1)}]},
        "opt": argparse.Namespace(cfg="", data=PurePosixPath("data/coco.yaml"), imgsz=640),
        "results": np.array([0.1, 0.2]),
        "date": "2022-11-22T12:00:00",
        "git": {"remote": None, "branch": "master"},
        "wandb_id": None,
    }
