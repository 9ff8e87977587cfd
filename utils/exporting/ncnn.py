"""ncnn: the graph for one image of one size, by way of pnnx, with a head that decodes without a slice.

pnnx reads a traced model and writes ncnn's layers. What a head does to single columns of its answers would be copies
there; a 1x1 convolution can as well give each kind of answer on its own, which is what the heads here do.
"""

from __future__ import annotations

import copy
import subprocess
import tempfile
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional

from models.common import SPD
from models.head import AnchorFreeDetect, Detect, DetectionHead
from models.yolo import DetectionModel
from utils.exporting.export_settings import ExportSettings
from utils.exporting.graph_output import GraphOutput, file_metadata
from utils.geometry.letterbox import FrameSize
from utils.geometry.records import HeadMaps
from utils.inference.ncnn_runtime import NCNN_GRAPH, NCNN_METADATA, NCNN_WEIGHTS
from utils.user_error import UserError


def write_ncnn(model: DetectionModel, path: Path, settings: ExportSettings) -> None:
    """Write ``model`` (in evaluation mode) to the new folder ``path``, weights in the precision of ``settings``.

    The folder has the graph (``.param``), the weights (``.bin``) and the metadata (``.yaml``). Input ``in0`` (3, H, W),
    output ``out0`` (N, 5 + C), without a batch; otherwise as ``GraphOutput``.

    Raises:
        UserError: pnnx fails, or the model has a layer that ncnn does not know.
    """
    shape = ",".join(map(str, settings.input_shape))
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".pnnx.") as name:
        folder = Path(name)
        _trace(_for_ncnn(model, settings.frame), folder / "model.pt", settings)
        _run_pnnx(folder, f"inputshape=[{shape}]", f"fp16={int(settings.precision == 'fp16')}")
        graph = (folder / NCNN_GRAPH).read_text(encoding="utf-8")
        unknown = {kind for kind in layer_kinds(graph) if "." in kind or ":" in kind}  # as pnnx calls torch's own
        if unknown:
            raise UserError(f"ncnn has no layer for {', '.join(sorted(unknown))}")
        path.mkdir()
        for file in (NCNN_GRAPH, NCNN_WEIGHTS):
            (folder / file).replace(path / file)
    metadata = file_metadata(model, settings)
    (path / NCNN_METADATA).write_text(yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _trace(model: DetectionModel, file: Path, settings: ExportSettings) -> None:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # see write_torchscript
        example = torch.zeros(settings.input_shape)
        traced = torch.jit.trace(GraphOutput(model), example, check_trace=False)  # type: ignore[no-untyped-call]
        torch.jit.save(traced, str(file))


def _run_pnnx(folder: Path, *arguments: str) -> None:
    """Leave the ncnn form of ``model.pt`` beside it."""
    import pnnx

    command = [pnnx.EXEC_PATH, "model.pt", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode or not (folder / NCNN_WEIGHTS).is_file():
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise UserError(f"pnnx ended with code {done.returncode} ({said[-1][:200] if said else 'no reason given'})")


def layer_kinds(graph: str) -> list[str]:
    """The kind of each layer of a graph, in order."""
    return [line.split()[0] for line in graph.splitlines()[2:] if line.strip()]


def _for_ncnn(model: DetectionModel, frame: FrameSize) -> DetectionModel:
    """A copy of ``model`` on the CPU whose head gives rows, and whose space-to-depth is made of convolutions."""
    copied = copy.deepcopy(model).cpu()
    for index, layer in enumerate(copied.model):
        if isinstance(layer, SPD):
            copied.model[index] = _PhasesByConvolution(layer.scale)
    head = copied.head
    if isinstance(head, Detect):
        copied.model[-1] = _AnchorRows(head, frame)
    elif isinstance(head, AnchorFreeDetect):
        copied.model[-1] = _AnchorFreeRows(head, frame)
    else:
        raise UserError(f"ncnn files are not written of a head {type(head).__name__}")
    return copied.eval()


class _PhasesByConvolution(nn.Module):
    """``SPD``, each phase picked by a convolution channel by channel: what remains of it (see ``fused``)."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        channels, scale = int(x.shape[1]), self.scale
        phases = []
        for place in range(scale * scale):
            kernel = np.zeros((channels, 1, scale, scale), np.float32)
            kernel[:, :, place % scale, place // scale] = 1
            # By way of NumPy the trace has it as a constant, not as what made it.
            phases.append(functional.conv2d(x, torch.from_numpy(kernel), stride=scale, groups=channels))
        return torch.cat(phases, dim=1)


class _RowsHead(DetectionHead):
    """A head whose answer is decoded: rows (1, K, 5 + C) in place of the maps, for images of one size.

    Everything is computed as columns (1, ..., A H W), numbers of one kind behind each other, and turned at the end.
    """

    def __init__(self, head: DetectionHead) -> None:
        super().__init__()
        self.class_count, self.strides = head.class_count, head.strides
        self.register_buffer("anchors", head.anchors)

    @abstractmethod
    def _columns(self, level: int, x: Tensor) -> Tensor:
        """One level's rows, turned: (1, 5 + C, A H W)."""

    def forward(self, maps: Sequence[Tensor]) -> HeadMaps:
        columns = torch.cat([self._columns(level, x) for level, x in enumerate(maps)], dim=2)
        return HeadMaps((columns.permute(0, 2, 1),))

    def rows(self, maps: HeadMaps) -> Tensor:
        """See ``DetectionHead``; they are there already."""
        (rows,) = maps.levels
        return rows


class _AnchorRows(_RowsHead):
    """``Detect`` whose convolutions give centres, sides, and probabilities apart; anchor after anchor in each."""

    def __init__(self, head: Detect, frame: FrameSize) -> None:
        super().__init__(head)
        self.anchor_count = count = head.anchor_count
        places = torch.arange(count * (5 + head.class_count)).view(count, -1).T  # (5 + C, A)
        levels = [_convolution_of(one) for one in head.m]
        self.centres = nn.ModuleList(_some_outputs(one, places[:2]) for one in levels)
        self.sides = nn.ModuleList(_some_outputs(one, places[2:4]) for one in levels)
        self.probabilities = nn.ModuleList(_some_outputs(one, places[4:]) for one in levels)
        # The sums of boxes_of_cells, in pixels: 2 stride s + stride (cell - 0.5), and 4 anchor s^2.
        self.offsets = nn.ParameterList(_cells(frame, stride, -0.5).view(1, 2, 1, -1) for stride in head.strides)
        self.factors = nn.ParameterList((4 * level.T).reshape(1, -1, 1, 1) for level in head.anchors_px)

    def _columns(self, level: int, x: Tensor) -> Tensor:
        cells = x.shape[2] * x.shape[3]
        centres = self.centres[level](x).sigmoid().reshape(1, 2, self.anchor_count, cells)
        centres = centres * (2.0 * self.strides[level]) + self.offsets[level]
        roots = self.sides[level](x).sigmoid()
        sides = roots * roots * self.factors[level]
        probabilities = self.probabilities[level](x).sigmoid()
        count = self.anchor_count * cells
        return torch.cat([part.reshape(1, -1, count) for part in (centres, sides, probabilities)], dim=1)


class _AnchorFreeRows(_RowsHead):
    """``AnchorFreeDetect``, from shares of distances to centres and sides by one product with constants."""

    def __init__(self, head: AnchorFreeDetect, frame: FrameSize) -> None:
        super().__init__(head)
        self.cv2, self.cv3, self.bins = head.cv2, head.cv3, head.BINS
        # cx cy w h out of left, top, right, bottom: half the difference beside the cell's centre, and the sum.
        turned = torch.tensor([[-0.5, 0, 0.5, 0], [0, -0.5, 0, 0.5], [1, 0, 1, 0], [0, 1, 0, 1]])
        means = (turned[:, :, None] * head.numbers).reshape(1, 4, -1)
        self.means = nn.ParameterList(means * stride for stride in head.strides)
        middles = [_cells(frame, stride, 0.5) for stride in head.strides]
        self.offsets = nn.ParameterList(torch.cat((one, torch.zeros_like(one)))[None] for one in middles)

    def _columns(self, level: int, x: Tensor) -> Tensor:
        cells = x.shape[2] * x.shape[3]
        shares = self.cv2[level](x).reshape(1, 4, self.bins, cells).softmax(dim=2).reshape(1, -1, cells)
        boxes = torch.matmul(self.means[level], shares) + self.offsets[level]
        probabilities = self.cv3[level](x).sigmoid().reshape(1, -1, cells)
        return torch.cat((boxes, torch.ones(1, 1, cells), probabilities), dim=1)


def _convolution_of(layer: nn.Module) -> nn.Conv2d:
    assert isinstance(layer, nn.Conv2d) and layer.bias is not None
    return layer


@torch.no_grad()
def _some_outputs(convolution: nn.Conv2d, places: Tensor) -> nn.Conv2d:
    """A 1x1 convolution that gives only these channels of another's output, in the order of ``places`` (any shape)."""
    chosen = places.flatten()
    own = nn.Conv2d(convolution.in_channels, len(chosen), 1)
    assert convolution.bias is not None and own.bias is not None
    own.weight.copy_(convolution.weight[chosen])
    own.bias.copy_(convolution.bias[chosen])
    return own


def _cells(frame: FrameSize, stride: int, shift: float) -> Tensor:
    """Column and row (2, H W) of each cell of a level, shifted, in pixels."""
    height, width = frame.height // stride, frame.width // stride
    down, across = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return (torch.stack((across, down)).flatten(1) + shift) * stride
