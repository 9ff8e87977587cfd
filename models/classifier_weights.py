"""Weights of a classifier from a file: YOLOv5's published ones, which are pickled modules, and this project's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.alignment import embedded, fits_inside, from_strided, strided_form, to_strided, weight_name
from models.classifier import (
    CUTOFF,
    USUAL_SIDE,
    YOLOV5,
    Classifier,
    ClassifierPlan,
    YoloClassifier,
    build_network,
)
from models.pickles import PickledFile, read_pickled
from models.restricted_unpickler import StandIn, TensorRecord
from models.weights import SCHEMA, class_names, pickled_model, read_weights
from utils.user_error import UserError

TASK = "classify"


@dataclass(frozen=True, slots=True)
class ClassifierWeights:
    """A classifier out of a file. ``state_dict``: float32, names of the network without ``net.``."""

    plan: ClassifierPlan
    names: tuple[str, ...]
    state_dict: dict[str, Tensor]
    path: Path
    imgsz: int = USUAL_SIDE  # side of the images that they were trained on, pixels


def is_classifier(path: Path) -> bool:
    """Whether a readable ``.pt`` file holds a classifier. UserError if it is missing, damaged or refused."""
    content = read_pickled(path).content
    if isinstance(content, dict) and "schema" in content:
        return bool(content.get("task") == TASK)
    module = pickled_model(content)
    return module is not None and module.path.endswith(".ClassificationModel")


def read_classifier(path: Path) -> ClassifierWeights:
    """Weights, architecture and names of a ``.pt`` file; the averaged weights where it has them.

    UserError in one line for a file that is missing, damaged, hostile, not of a classifier that is known here, or
    with values that are not finite.
    """
    file = read_pickled(path)
    content = file.content
    weights = _own(file, content) if isinstance(content, dict) and "schema" in content else _published(file, content)
    for name, tensor in weights.state_dict.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise UserError(f"{path}: '{name}' holds values that are not finite; a training run has diverged there")
    return weights


def load_classifier(path: Path) -> Classifier:
    """The classifier of a ``.pt`` file, float32, in evaluation mode."""
    weights = read_classifier(path)
    model = Classifier(weights.plan, weights.names, weights.imgsz)
    try:
        model.net.load_state_dict(weights.state_dict)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{path}: weights and architecture do not fit ({reason})") from error
    return model.eval()


def classifier_fields(model: Classifier) -> dict[str, Any]:
    """The part of our checkpoint that describes the model: plain values only."""
    return {
        "schema": SCHEMA,
        "task": TASK,
        "architecture": model.plan.as_dict(),
        "names": list(model.names),
        "imgsz": model.imgsz,
    }


def read_start(path: Path) -> ClassifierWeights:
    """What a ``.pt`` file has to start a classifier from: a classifier, or the backbone of a YOLOv5 detector.

    UserError as `read_classifier`, and for a detector of another build than yolov5n to yolov5x.
    """
    if is_classifier(path):
        return read_classifier(path)
    detector = read_weights(path)
    for name in YOLOV5:
        with torch.device("meta"):
            own = build_network(ClassifierPlan(name=name), 1).state_dict()
        shapes = {key: each.shape for key, each in own.items() if not key.startswith(f"model.{CUTOFF - 1}.")}
        found = {key: detector.state_dict[key] for key in shapes if key in detector.state_dict}
        if {key: each.shape for key, each in found.items()} == shapes:
            return ClassifierWeights(ClassifierPlan(name=name), (), found, path)
    raise UserError(f"{path}: a detector whose backbone is none of yolov5n to yolov5x")


@torch.no_grad()
def take_weights(model: Classifier, weights: ClassifierWeights) -> str:
    """Give the model what fits by name and shape, the head only for equal class names; a line that says how much.

    A strided convolution of YOLOv5's starts its SPD form as the same function.

    Raises:
        UserError: nothing fits.
    """
    own = model.net.state_dict()
    found = weights.state_dict | _rewritten(model.net, weights)
    fitting = {name: value for name, value in found.items() if name in own and value.shape == own[name].shape}
    if weights.names != model.names:  # a head of as many other classes would say nothing about these
        head = list(own)[-2:]
        fitting = {name: value for name, value in fitting.items() if name not in head}
    if not fitting:
        raise UserError(f"{weights.path}: none of its tensors fits {model.plan.name}")
    model.net.load_state_dict(fitting, strict=False)
    left = [name for name in own if name not in fitting]
    missing = f"; fresh: {', '.join(left[:4])}{' and more' if len(left) > 4 else ''}" if left else ""
    return f"{weights.path.name}: took {len(fitting)} of {len(own)} tensors{missing}"


def _rewritten(network: nn.Module, weights: ClassifierWeights) -> dict[str, Tensor]:
    """Weights of strided convolutions for the space-to-depth layers that stand in their place in ``network``."""
    with torch.device("meta"):
        source = build_network(weights.plan, max(len(weights.names), 1))
    if not isinstance(network, YoloClassifier) or not isinstance(source, YoloClassifier):
        return {}
    values = {}
    for index, (old, new) in enumerate(zip(source.model, network.model, strict=False)):
        before, after = strided_form(old), strided_form(new)
        if type(old) is not type(new) and before and after and fits_inside(before, after):
            kernel = to_strided(old, weights.state_dict[f"model.{index}.{weight_name(old)}"])
            values[f"model.{index}.{weight_name(new)}"] = from_strided(new, embedded(kernel, before, after))
    return values


def _own(file: PickledFile, content: Mapping[Any, Any]) -> ClassifierWeights:
    path = file.path
    if content.get("task") != TASK:
        raise UserError(f"{path}: holds a detector, not a classifier")
    if content["schema"] != SCHEMA:
        raise UserError(f"{path}: checkpoint schema {content['schema']!r}; this version reads schema {SCHEMA}")
    state = content.get("average") or content.get("model")
    if not isinstance(state, dict) or not all(isinstance(record, TensorRecord) for record in state.values()):
        raise UserError(f"{path}: checkpoint whose weights are not all tensors")
    return ClassifierWeights(
        plan=ClassifierPlan.from_dict(file.plain(content.get("architecture")), str(path)),
        names=class_names(content.get("names"), path),
        state_dict={str(name).removeprefix("net."): file.tensor(record) for name, record in state.items()},
        path=path,
        imgsz=imgsz if isinstance(imgsz := content.get("imgsz"), int) else USUAL_SIDE,
    )


def _published(file: PickledFile, content: Any) -> ClassifierWeights:
    """A pickled `ClassificationModel`, which carries no architecture: the one of the family that has its shapes."""
    module = pickled_model(content)
    if module is None:
        raise UserError(f"{file.path}: holds no model")
    if not module.path.endswith(".ClassificationModel"):
        raise UserError(f"{file.path}: holds a {module.path.rsplit('.', 1)[-1]}, not a classifier")
    state = file.state_dict(module)
    head = f"model.{CUTOFF - 1}.linear.bias"
    if head not in state:
        raise UserError(f"{file.path}: a classifier of another build than yolov5n-cls to yolov5x-cls")
    class_count = len(state[head])
    shapes = {name: tensor.shape for name, tensor in state.items()}
    for name in YOLOV5:
        plan = ClassifierPlan(name=name)
        with torch.device("meta"):
            candidate = build_network(plan, class_count).state_dict()
        if shapes == {key: tensor.shape for key, tensor in candidate.items()}:
            return ClassifierWeights(plan, _published_names(module, class_count, file.path), state, file.path)
    raise UserError(f"{file.path}: a classifier of another build than yolov5n-cls to yolov5x-cls")


def _published_names(module: StandIn, class_count: int, path: Path) -> tuple[str, ...]:
    value = module.attributes.get("names")
    names = class_names(value, path) if value is not None else ()
    return names if len(names) == class_count else tuple(f"class{index}" for index in range(class_count))
