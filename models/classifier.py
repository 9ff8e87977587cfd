"""Classifiers by name: ResNets and their SPD forms, YOLOv5's, torchvision's and their SPD forms.

resnet18 resnet50 resnet18-spd resnet50-spd      for small images, see models/resnet.py
yolov5{n,s,m,l,x}-cls yolov5{n,s,m,l,x}-spd-cls  the backbone of the detector, then `Classify`
mobilenet_v3_small mobilenet_v3_small-spd ...    torchvision's names; -spd swaps every downsampling layer
"""

from __future__ import annotations

import difflib
import re
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from models.architecture import find_architecture, read_architecture
from models.common import Conv
from models.convert import replace_downsampling
from models.resnet import NAMES as RESNETS
from models.resnet import ClassifierArchitecture, ResNet, ShortcutForm, StemForm
from models.yolo import build_layers
from utils.user_error import UserError

SIZES = "nsmlx"
YOLOV5 = tuple(f"yolov5{size}{form}-cls" for form in ("", "-spd") for size in SIZES)
YOLOV5_PATTERN = re.compile(rf"(yolov5[{SIZES}](?:-spd)?)-cls")
CLASSIFY_WIDTH = 1280  # channels of YOLOv5's classification head
USUAL_SIDE = 224  # pixels
CUTOFF = 10  # layers of YOLOv5's classifiers, the head included


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
    """UserError if the model cannot look at images of ``side`` pixels: too small, or another size than its own."""
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
