"""ResNet-18 and ResNet-50 for small images, and their SPD forms (Sunkara & Luo, ECML PKDD 2022, section 4.2).

    baseline    3x3 stem at full resolution, a strided 3x3 convolution where a stage begins (He et al., CVPR 2016)
    SPD         space-to-depth stem, 3x3 convolution of stride 1 then space-to-depth where a stage begins

No net has a max pool: the images that these nets are for are 32 to 64 pixels wide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from models.architecture import nearest
from models.common import SPD
from utils.user_error import UserError

Downsampling = Literal["none", "strided", "spd"]
ShortcutForm = Literal["strided", "spd"]
StemForm = Literal["full", "strided"]

STEM_CHANNELS = 64
STAGE_WIDTHS = (64, 128, 256, 512)
SCALE = 2


@dataclass(frozen=True, slots=True)
class Depth:
    """Blocks of each stage, and how much wider than its 3x3 convolution a block's output is (1: no bottleneck)."""

    blocks: tuple[int, int, int, int]
    expansion: int


DEPTHS = {"resnet18": Depth((2, 2, 2, 2), 1), "resnet50": Depth((3, 4, 6, 3), 4)}
NAMES = tuple(name + form for name in DEPTHS for form in ("", "-spd"))


@dataclass(frozen=True, slots=True)
class ClassifierArchitecture:
    """Everything that decides the parameters of a net; ``build_classifier(**asdict(...))`` builds it again."""

    name: str  # one of NAMES
    class_count: int
    shortcut: ShortcutForm = "strided"  # of the SPD nets where a stage begins
    stem: StemForm = "full"  # of the baselines
    channels: int = 3  # of the image

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise UserError(f"{self.name}: no such classifier, there are {', '.join(NAMES)}{nearest(self.name, NAMES)}")
        for field, value, valid in (
            ("shortcut", self.shortcut, ("strided", "spd")),
            ("stem", self.stem, ("full", "strided")),
        ):
            if value not in valid:
                raise UserError(f"{self.name}: {field} {value!r} is neither '{valid[0]}' nor '{valid[1]}'")
        for field, number in (("class_count", self.class_count), ("channels", self.channels)):
            if number < 1:
                raise UserError(f"{self.name}: {field} {number} is below 1")
        if self.is_spd and self.stem != "full":
            raise UserError(
                f"{self.name}: stem '{self.stem}' is a choice of the baselines, an SPD net has its own stem"
            )
        if not self.is_spd and self.shortcut != "strided":
            raise UserError(f"{self.name}: shortcut '{self.shortcut}' needs an SPD net, such as {self.name}-spd")

    @property
    def is_spd(self) -> bool:
        return self.name.endswith("-spd")

    @property
    def depth(self) -> Depth:
        return DEPTHS[self.name.removesuffix("-spd")]

    @property
    def downsampling(self) -> Downsampling:
        return "spd" if self.is_spd else "strided"


def _convolution(entering: int, leaving: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(entering, leaving, size, stride, size // 2, bias=False)


def _pointwise(entering: int, leaving: int) -> list[nn.Module]:
    return [_convolution(entering, leaving, 1), nn.BatchNorm2d(leaving)]


def _spatial(entering: int, width: int, downsampling: Downsampling) -> tuple[list[nn.Module], int]:
    """The 3x3 convolution that may halve the map, with norm and activation; and the channels that leave it.

    In the SPD form norm and activation act on the rearranged map, each phase with constants of its own.
    """
    stride = SCALE if downsampling == "strided" else 1
    layers: list[nn.Module] = [_convolution(entering, width, 3, stride)]
    if downsampling == "spd":
        layers.append(SPD(SCALE))
        width *= SCALE * SCALE
    return [*layers, nn.BatchNorm2d(width), nn.ReLU(inplace=True)], width


class ResidualBlock(nn.Module):
    """relu(residual(x) + shortcut(x)): (B, C_in, H, W) -> (B, expansion * width, H / stride, W / stride)."""

    def __init__(
        self, entering: int, width: int, expansion: int, downsampling: Downsampling, shortcut: ShortcutForm
    ) -> None:
        super().__init__()
        leaving = width * expansion
        if expansion == 1:
            layers, between = _spatial(entering, width, downsampling)
            self.residual = nn.Sequential(*layers, _convolution(between, leaving, 3), nn.BatchNorm2d(leaving))
        else:
            layers, between = _spatial(width, width, downsampling)
            self.residual = nn.Sequential(
                *_pointwise(entering, width), nn.ReLU(inplace=True), *layers, *_pointwise(between, leaving)
            )
        self.shortcut = _shortcut(entering, leaving, downsampling, shortcut)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.residual(x) + self.shortcut(x))


def _shortcut(entering: int, leaving: int, downsampling: Downsampling, form: ShortcutForm) -> nn.Sequential:
    """Nothing where map and channels stay, else a 1x1 projection, which reads every pixel only in the SPD form."""
    if downsampling == "none":
        return nn.Sequential(*(_pointwise(entering, leaving) if entering != leaving else ()))
    if form == "spd":
        return nn.Sequential(SPD(SCALE), *_pointwise(SCALE * SCALE * entering, leaving))
    return nn.Sequential(_convolution(entering, leaving, 1, SCALE), nn.BatchNorm2d(leaving))


def _stem(architecture: ClassifierArchitecture) -> nn.Sequential:
    """(B, channels, H, W) -> (B, 64, H, W) with the full stem, (B, 64, ceil(H / 2), ceil(W / 2)) with the others."""
    channels = architecture.channels
    if architecture.is_spd:
        layers = [SPD(SCALE), *_pointwise(SCALE * SCALE * channels, STEM_CHANNELS)]
        return nn.Sequential(*layers, nn.SiLU(inplace=True))
    size, stride = (3, 1) if architecture.stem == "full" else (7, SCALE)
    convolution = _convolution(channels, STEM_CHANNELS, size, stride)
    return nn.Sequential(convolution, nn.BatchNorm2d(STEM_CHANNELS), nn.ReLU(inplace=True))


class ResNet(nn.Module):
    """Images (B, channels, H, W), float, any memory format -> class logits (B, class_count).

    The order of the parameters is that of the authors' nets; ``architecture`` is what a checkpoint has to keep.
    """

    def __init__(self, architecture: ClassifierArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.stem = _stem(architecture)
        self.stages = nn.Sequential()
        expansion, channels = architecture.depth.expansion, STEM_CHANNELS
        for index, (width, count) in enumerate(zip(STAGE_WIDTHS, architecture.depth.blocks, strict=True)):
            stage = nn.Sequential()
            for block in range(count):
                halves: Downsampling = architecture.downsampling if index > 0 and block == 0 else "none"
                stage.append(ResidualBlock(channels, width, expansion, halves, architecture.shortcut))
                channels = width * expansion
            self.stages.append(stage)
        self.fc = nn.Linear(channels, architecture.class_count)

    @property
    def class_count(self) -> int:
        return self.architecture.class_count

    def forward(self, x: Tensor) -> Tensor:
        features = self.stages(self.stem(x)).mean(dim=(2, 3))  # (B, C)
        logits: Tensor = self.fc(features)
        return logits


def build_classifier(
    name: str,
    class_count: int,
    *,
    shortcut: ShortcutForm = "strided",
    stem: StemForm = "full",
    channels: int = 3,
) -> ResNet:
    """A freshly initialised net: ``resnet18``, ``resnet50``, ``resnet18-spd`` or ``resnet50-spd``.

    ``shortcut`` (SPD nets): ``strided`` keeps the 1x1 convolution of stride 2 of the authors' code; ``spd`` replaces it
    too, which is what the paper's text says. ``stem`` (baselines): ``full`` is a 3x3 convolution that keeps the
    resolution, so that the net halves the image three times; ``strided`` is the 7x7 convolution of stride 2 of the
    original ResNet, so that it halves the image four times, as the SPD nets do.

    Raises:
        UserError: an unknown name (names the nearest), or an option that the net does not have.
    """
    return ResNet(ClassifierArchitecture(name, class_count, shortcut, stem, channels))
