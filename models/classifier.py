"""Classifiers by name and from files: ResNets and their SPD forms, YOLOv5's, torchvision's and their SPD forms.

resnet18 resnet50 resnet18-spd resnet50-spd      for small images, see models/resnet.py
yolov5{n,s,m,l,x}-cls yolov5{n,s,m,l,x}-spd-cls  the backbone of the detector, then `Classify`
mobilenet_v3_small mobilenet_v3_small-spd ...    torchvision's names; -spd swaps every downsampling layer
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.alignment import embedded, fits_inside, from_strided, strided_form, to_strided, weight_name
from models.architecture import find_architecture, read_architecture
from models.common import Conv
from models.convert import replace_downsampling
from models.pickles import PickledFile, read_pickled
from models.resnet import NAMES as RESNETS
from models.resnet import ClassifierArchitecture, ResNet, ShortcutForm, StemForm
from models.restricted_unpickler import StandIn, TensorRecord
from models.weights import SCHEMA, class_names, pickled_model, read_weights
from models.yolo import build_layers
from utils.user_error import UserError

SIZES = "nsmlx"
YOLOV5 = tuple(f"yolov5{size}{form}-cls" for form in ("", "-spd") for size in SIZES)
YOLOV5_PATTERN = re.compile(rf"(yolov5[{SIZES}](?:-spd)?)-cls")
CLASSIFY_WIDTH = 1280  # channels of YOLOv5's classification head
USUAL_SIDE = 224  # pixels
CUTOFF = 10  # layers of YOLOv5's classifiers, the head included
TASK = "classify"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierPlan:
    """Everything that decides the parameters of a classifier besides its classes."""

    name: str
    shortcut: ShortcutForm = "strided"  # of the SPD ResNets where a stage begins
    stem: StemForm = "full"  # of the plain ResNets
    cutoff: int = CUTOFF  # of YOLOv5's: layers, the head included

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any, origin: str) -> ClassifierPlan:
        """The plan out of a checkpoint; UserError names ``origin``."""
        fields = {"name": str, "shortcut": str, "stem": str, "cutoff": int}
        if not isinstance(values, dict) or not all(type(values.get(key)) is kind for key, kind in fields.items()):
            raise UserError(f"{origin}: checkpoint whose architecture is not that of a classifier")
        return cls(**{key: values[key] for key in fields})


class Classify(nn.Module):
    """YOLOv5's head: 1x1 convolution, mean over the map, dropout, linear; (B, C_in, H, W) -> (B, class_count)."""

    def __init__(self, in_channels: int, class_count: int) -> None:
        super().__init__()
        self.conv = Conv(in_channels, CLASSIFY_WIDTH)
        self.drop = nn.Dropout(p=0.0)
        self.linear = nn.Linear(CLASSIFY_WIDTH, class_count)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.drop(self.conv(x).mean(dim=(2, 3))))
        return logits


class YoloClassifier(nn.Module):
    """Backbone of a YOLOv5 detector and `Classify`; the names of the parameters are YOLOv5's (``model.9.linear``)."""

    def __init__(self, detector: str, cutoff: int, class_count: int) -> None:
        """``cutoff``: layers, the head included, which stands in the place of the last one."""
        super().__init__()
        architecture = read_architecture(find_architecture(f"{detector}.yaml"))
        straight = [row.sources == (-1,) for row in architecture.rows]
        longest = straight.index(False) + 1  # the first row that joins maps can still give way to the head
        if not 2 <= cutoff <= longest:
            raise UserError(f"{detector}-cls: cutoff {cutoff} is not 2 to {longest} layers")
        backbone = replace(architecture, backbone=architecture.rows[: cutoff - 1], head=())
        layers, _, channels = build_layers(backbone)
        self.model = nn.Sequential(*layers, Classify(channels[-1], class_count))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits


class Classifier(nn.Module):
    """Images (B, 3, H, W) float, see `normalized` -> logits (B, class_count). ``net`` is the network itself."""

    stride = 32  # images are exported in multiples of it, where no net here depends on how a rest is padded

    def __init__(self, plan: ClassifierPlan, names: tuple[str, ...], imgsz: int = USUAL_SIDE) -> None:
        """``imgsz``: side of the square images that the weights are for, pixels."""
        super().__init__()
        self.plan = plan
        self.names = names
        self.imgsz = imgsz
        self.net = build_network(plan, len(names))

    @property
    def class_count(self) -> int:
        return len(self.names)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images)
        return logits


def build_network(plan: ClassifierPlan, class_count: int) -> nn.Module:
    """A freshly initialised network.

    Raises:
        UserError: no such name (names near ones), or an option that the network does not have.
    """
    yolov5 = YOLOV5_PATTERN.fullmatch(plan.name)
    if plan.name not in RESNETS and (plan.shortcut, plan.stem) != ("strided", "full"):
        raise UserError(f"{plan.name}: shortcut and stem are choices of {', '.join(RESNETS)}")
    if not yolov5 and plan.cutoff != CUTOFF:
        raise UserError(f"{plan.name}: cutoff is a choice of YOLOv5's classifiers, such as yolov5n-cls")
    if plan.name in RESNETS:
        return ResNet(ClassifierArchitecture(plan.name, class_count, plan.shortcut, plan.stem))
    if yolov5:
        return YoloClassifier(yolov5[1], plan.cutoff, class_count)
    return _torchvision_network(plan.name, class_count)


def _torchvision_network(name: str, class_count: int) -> nn.Module:
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    plain = name.removesuffix("-spd")
    if plain not in known:
        near = difflib.get_close_matches(name, [*RESNETS, *YOLOV5, *known], n=3)
        raise UserError(f"{name}: no such classifier{'; near: ' + ', '.join(near) if near else ''}")
    # These two have further outputs in training, which their authors used against vanishing gradients.
    options = {"aux_logits": False, "init_weights": True} if plain in ("googlenet", "inception_v3") else {}
    network: nn.Module = torchvision.models.get_model(plain, weights=None, num_classes=class_count, **options)
    if name.endswith("-spd"):
        replace_downsampling(network)
        network.eval()
        with torch.no_grad():
            network(torch.zeros(1, 3, 224, 224))  # pools get their weights from the first map that they see
    return network.train()


@torch.no_grad()
def check_takes(model: Classifier, side: int) -> None:
    """UserError if the model cannot take images of ``side`` pixels: too small, or another size than its own."""
    was_training = model.training
    parameter = next(model.parameters())
    try:
        model.eval()(torch.zeros(1, 3, side, side, dtype=parameter.dtype, device=parameter.device))
    except (RuntimeError, AssertionError, ValueError) as error:  # whichever the network's author raises
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{model.plan.name}: does not take images of {side} x {side} px ({reason})") from None
    finally:
        model.train(was_training)


def set_dropout(model: nn.Module, probability: float) -> None:
    """Give every dropout layer its probability; UserError for a network without any."""
    layers = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    if probability and not layers:
        raise UserError(f"dropout {probability:g}: the network has no dropout layer")
    for layer in layers:
        layer.p = probability


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
