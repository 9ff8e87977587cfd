"""Weights of a detector from a file: YOLOv5-style pickled modules and this project's own checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.architecture import ANCHOR_FREE, KEYS, Architecture
from models.pickles import PickledFile, read_pickled
from models.restricted_unpickler import StandIn, TensorRecord
from models.rows import ACTIVATIONS
from models.yolo import DetectionModel
from utils.user_error import UserError, typed

SCHEMA = 1  # of our checkpoints
# A second copy of the anchors, in pixels, in releases up to 5; and the numbers 0 to 15 as the weight of a convolution.
NOT_LEARNED = (".anchor_grid", ".dfl.conv.weight")
ENOUGH_OBJECTS = 30  # of a class in the validation part, for a threshold of its own


@dataclass(frozen=True, slots=True)
class ModelWeights:
    """A detector out of a file. ``state_dict``: float32; ``anchors`` (L, A, 2) pixels, finest level first."""

    architecture: Architecture
    names: tuple[str, ...]
    anchors: Tensor
    strides: tuple[int, ...]
    state_dict: dict[str, Tensor]
    path: Path

    def give_anchors(self, model: DetectionModel) -> None:
        """Set the file's anchors in a model of its architecture; UserError if they do not fit."""
        try:
            model.set_anchors(self.anchors)
        except ValueError as error:
            raise UserError(f"{self.path}: {error}") from error


def read_weights(path: Path) -> ModelWeights:
    """Weights, architecture, names and anchors of a ``.pt`` file; the averaged weights where it has them.

    UserError in one line for a file that is missing, damaged, hostile, without a detector, or with values that are
    not finite, which would find nothing without a word.
    """
    weights = _weights_in(path)
    for name, tensor in (*weights.state_dict.items(), ("anchors", weights.anchors)):
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise UserError(f"{path}: '{name}' holds values that are not finite; a training run has diverged there")
    return weights


def _weights_in(path: Path) -> ModelWeights:
    file = read_pickled(path)
    content = file.content
    if isinstance(content, dict) and "schema" in content:
        return _own(file, content)
    module = pickled_model(content)
    if module is None:
        raise UserError(f"{path}: holds no model")
    return _pickled_module(file, module)


def best_thresholds(path: Path) -> tuple[float, ...]:
    """The confidence of each class at which F1 was best when the weights were evaluated in training.

    A class of fewer than ``ENOUGH_OBJECTS`` validation objects has that of all classes.

    Raises:
        UserError: the file has none; it says where to read them.
    """
    content = _own_content(path) if path.suffix == ".pt" else {}
    stored, names = content.get("thresholds") or {}, content.get("names")
    whole = stored.get("best_f1") if isinstance(stored, dict) else None
    if not isinstance(whole, float) or not isinstance(names, (list, tuple)):
        raise UserError(
            f"--conf auto: {path}: has no thresholds, which only train.py's checkpoints have; "
            f"{typed('python val.py')} --weights {path} prints the best one, to be given as a number"
        )
    classes = stored.get("classes")
    thresholds = [whole] * len(names)
    for kind, row in classes.items() if isinstance(classes, dict) else ():
        known = isinstance(row, dict) and isinstance(row.get("best_f1"), float)
        if known and kind in range(len(names)) and row.get("objects", 0) >= ENOUGH_OBJECTS:
            thresholds[kind] = row["best_f1"]
    return tuple(thresholds)


def stored_thresholds(path: Path) -> dict[str, Any]:
    """The part of a checkpoint that ``best_thresholds`` reads; empty where there is none."""
    content = _own_content(path)
    return {"thresholds": content["thresholds"]} if "thresholds" in content else {}


def _own_content(path: Path) -> Mapping[str, Any]:
    content = read_pickled(path).content
    return content if isinstance(content, dict) and "schema" in content else {}


def pickled_model(content: object) -> StandIn | None:
    """The module in the content of a YOLOv5-style file, averaged where it has that; None without one."""
    if isinstance(content, dict):
        content = next((content[key] for key in ("ema", "model") if isinstance(content.get(key), StandIn)), None)
    return content if isinstance(content, StandIn) else None


def load_model(path: Path) -> DetectionModel:
    """The detector of a ``.pt`` file, float32, in evaluation mode, names and anchors set."""
    return build_model(read_weights(path))


def build_model(weights: ModelWeights) -> DetectionModel:
    """A model of the weights' own architecture that holds them, in evaluation mode."""
    model = DetectionModel(weights.architecture, names=weights.names)
    try:
        model.load_state_dict(weights.state_dict)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{weights.path}: weights and architecture do not fit ({reason})") from error
    if weights.strides != model.strides:
        raise UserError(f"{weights.path}: strides {weights.strides}, but its architecture has {model.strides}")
    weights.give_anchors(model)
    return model.eval()


def _own(file: PickledFile, content: Mapping[Any, Any]) -> ModelWeights:
    path = file.path
    if content.get("task", "detect") != "detect":
        raise UserError(f"{path}: holds a classifier, not a detector; use the scripts in classify/")
    if content["schema"] != SCHEMA:
        raise UserError(f"{path}: checkpoint schema {content['schema']!r}; this version reads schema {SCHEMA}")
    missing = [key for key in ("architecture", "names", "anchors", "strides", "model") if key not in content]
    if missing:
        raise UserError(f"{path}: checkpoint without '{missing[0]}'")
    state = content.get("average") or content["model"]
    if not isinstance(content["architecture"], dict) or not isinstance(state, dict):
        raise UserError(f"{path}: checkpoint whose architecture or weights are not a mapping")
    if not isinstance(content["anchors"], TensorRecord):
        raise UserError(f"{path}: checkpoint whose anchors are not a tensor")
    strides = content["strides"]
    if not isinstance(strides, (list, tuple)) or not all(type(each) is int for each in strides):
        raise UserError(f"{path}: checkpoint whose strides are {str(strides)[:40]!r}, not whole numbers")
    if not all(isinstance(record, TensorRecord) for record in state.values()):
        raise UserError(f"{path}: checkpoint whose weights are not all tensors")
    return ModelWeights(
        architecture=Architecture.from_dict(file.plain(content["architecture"]), str(path)),
        names=class_names(content["names"], path),
        anchors=file.tensor(content["anchors"]),
        strides=tuple(strides),
        state_dict={str(name): file.tensor(record) for name, record in state.items()},
        path=path,
    )


def _pickled_module(file: PickledFile, module: StandIn) -> ModelWeights:
    path = file.path
    values = file.plain(module.attributes.get("yaml"))
    if not isinstance(values, dict):
        raise UserError(f"{path}: its model carries no architecture (attribute 'yaml')")
    state = {name: each for name, each in file.state_dict(module).items() if not name.endswith(NOT_LEARNED)}
    if module.path.startswith("ultralytics."):
        values = _as_written_here(values, path)
    values = {"activation": _activation(module)} | {key: each for key, each in values.items() if key in KEYS}
    architecture = Architecture.from_dict(values, str(path))
    record = module.attributes.get("stride")
    head = f"model.{len(architecture.rows) - 1}"
    has_anchors = f"{head}.anchors" in state
    if not isinstance(record, TensorRecord) or has_anchors == (architecture.anchors == 0):
        raise UserError(f"{path}: its model has no strides or no anchors; is it a detector?")
    strides = file.tensor(record)
    names = class_names(module.attributes.get("names"), path)
    if len(names) != architecture.class_count:
        names = tuple(map(str, range(architecture.class_count)))
    return ModelWeights(
        architecture=architecture,
        names=names,
        anchors=state[f"{head}.anchors"] * strides.view(-1, 1, 1) if has_anchors else torch.zeros(len(strides), 0, 2),
        strides=tuple(int(each) for each in strides.tolist()),
        state_dict=state,
        path=path,
    )


def _as_written_here(values: dict[Any, Any], path: Path) -> dict[Any, Any]:
    """The architecture of a YOLOv5u file: its head by the name that it has here, its multiples by the model's size."""
    values = dict(values)
    scales, size = values.get("scales"), values.get("scale")
    own = scales.get(size) if isinstance(scales, dict) and isinstance(size, str) else None
    rows = [row for part in ("backbone", "head") if isinstance(values.get(part), list) for row in values[part]]
    if isinstance(own, list) and len(own) == 3 and type(own[2]) is int:
        values["depth_multiple"], values["width_multiple"], most = own
        for row in rows:
            arguments = row[3] if isinstance(row, list) and len(row) == 4 else None
            if isinstance(arguments, list) and arguments and type(arguments[0]) is int and arguments[0] > most:
                raise UserError(f"{path}: a layer of {arguments[0]} channels, limited to {most}: not readable")
    head = values.get("head")
    if isinstance(head, list) and head and isinstance(head[-1], list):
        values["head"] = [*head[:-1], [ANCHOR_FREE if part == "Detect" else part for part in head[-1]]]
    return values


def _activation(module: StandIn) -> str | None:
    """The activation of the first convolution, where it is not today's: early releases had others, without a key."""
    kind, slope = "", None
    pending = [module]
    while pending and not kind:
        children = pending.pop(0).attributes.get("_modules")
        for name, child in children.items() if isinstance(children, dict) else ():
            if isinstance(child, StandIn):
                pending.append(child)
                if name == "act" and child.path.startswith("torch.nn.modules.activation."):
                    kind, slope = child.path.rsplit(".", 1)[1], child.attributes.get("negative_slope")
    if kind in ("", "SiLU") or kind not in ACTIVATIONS:
        return None
    return f"nn.{kind}({slope if isinstance(slope, float) else ''})"


def class_names(value: object, path: Path) -> tuple[str, ...]:
    """Class names, from a list or from a mapping of class numbers."""
    if isinstance(value, dict):
        value = [value[key] for key in sorted(value)]
    if not isinstance(value, (list, tuple)) or not all(isinstance(each, (str, int)) for each in value):
        raise UserError(f"{path}: class names are {str(value)[:80]}; a list of texts is needed")
    return tuple(map(str, value))


def checkpoint_fields(model: DetectionModel) -> dict[str, Any]:
    """The part of our checkpoint that is the model: tensors and plain values only."""
    weights = {name: each.detach().cpu().clone() for name, each in model.state_dict().items()}
    return {**model_description(model), "model": weights, "average": None}


def model_description(model: DetectionModel) -> dict[str, Any]:
    """The part of our checkpoint that says how to build the model, without its weights."""
    return {
        "schema": SCHEMA,
        "task": "detect",
        "architecture": model.architecture.as_dict(),
        "names": list(model.names),
        "anchors": model.anchors.detach().to("cpu", torch.float32).clone(),
        "strides": list(model.strides),
    }
