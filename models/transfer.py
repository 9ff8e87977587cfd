"""Weights of one detector put into another: as they are, rewritten for space-to-depth, or by equal name and shape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.alignment import (
    Match,
    Relation,
    StridedForm,
    align,
    embedded,
    from_strided,
    renamed,
    signature,
    strided_form,
    to_strided,
    weight_name,
)
from models.common import SPD, Concat
from models.head import AnchorFreeDetect, Detect, DetectionHead
from models.roles import INPUT_WEIGHTS, further_channels, layers_by_role, nearest_levels, tensors_from
from models.weights import ModelWeights
from models.yolo import DetectionModel

NAMED_LAYERS = 6  # how many layers a report names before it counts

ChannelMap = Tensor  # (C_target,) int64: the source channel that a target channel carries, -1 for a new one


@dataclass(frozen=True, slots=True)
class TransferReport:
    """What a model took from a file. Names are state-dict names of the model; anchors are spoken of in ``notes``."""

    source: str
    total: int
    taken: tuple[str, ...]
    rewritten: tuple[str, ...]  # those of ``taken`` whose values were rearranged
    left: tuple[str, ...]  # keep their fresh values
    notes: tuple[str, ...]
    exact: bool  # the model now computes the same function as the file's
    moved: tuple[str, ...] = ()  # layers of other numbers that do the same work: "22 as 18", the model's first
    levels: tuple[int, ...] = ()  # strides of the head's levels, where not all were taken

    def lines(self) -> tuple[str, ...]:
        """What was taken, what was not, and where other numbers or neighbours were taken from."""
        how = f", {len(self.rewritten)} of them rewritten for space-to-depth" if self.rewritten else ""
        result = "; the model computes the same function" if self.exact else ""
        where = f" (layers {_ranges(self.taken)})" if self.taken and self.left else ""
        first = f"{self.source}: took {len(self.taken)} of {self.total} tensors{where}{how}{result}"
        missing = f"layers {_named(self.left)}" if self.left else "nothing"
        second = "; ".join((f"not taken: {missing}", *self.notes))
        moved = f"by their work: layers {', '.join(self.moved)}" if self.moved else ""
        levels = f"the head's strides {', '.join(map(str, self.levels))}" if self.levels else ""
        return first, second, *filter(None, ["; ".join(filter(None, (moved, levels)))])


@torch.no_grad()
def transfer_weights(model: DetectionModel, weights: ModelWeights) -> TransferReport:
    """Fills ``model`` with as much of ``weights`` as fits and says how much that was.

    Layers that do the same work are found along both graphs (see models/alignment.py); a YOLOv5 checkpoint thus
    starts an SPD model as the same function. From the first difference of the graphs on, layers are taken by their
    work (see models/roles.py) and, where that finds none, by equal number, type, names and shapes; a new level starts
    fresh. The head is taken by class names where classes differ; anchors stay the model's own, unless it has none yet.
    """
    with torch.device("meta"):
        source = DetectionModel(weights.architecture, names=weights.names)
    transfer = _Transfer(source, model, weights.state_dict)
    for match in align(source, model):
        if not transfer.apply(match):
            break
    if len(transfer.done) < len(model.plan):
        transfer.take_by_role()
    has_its_anchors, notes = _settle_anchors(model, weights)
    return transfer.finish(weights.path.name, (*transfer.notes, *notes), is_exact=transfer.is_exact and has_its_anchors)


class _Transfer:
    """Proposed values for the model's tensors, layer by layer."""

    def __init__(self, source: DetectionModel, model: DetectionModel, state: dict[str, Tensor]) -> None:
        self.source, self.model, self.state = source, model, state
        self.fresh = {name: each for name, each in model.state_dict().items() if not name.endswith(".anchors")}
        self.values: dict[str, Tensor] = {}
        self.rewritten: list[str] = []
        self.notes: list[str] = []
        self.is_exact = True
        self.maps: dict[int, ChannelMap] = {}
        self.done: list[Match] = []
        self.origins: dict[int, int] = {}  # target layer -> the source layer that began it, where it was not matched
        self.levels: list[int] = []  # strides of the head's levels that were taken one by one
        self._note_channels()

    def _note_channels(self) -> None:
        before, after = self.source.architecture.channels or 3, self.model.architecture.channels or 3
        self.images_before, self.images_after = before, after
        if before == after:
            return
        self.is_exact = False
        if after == 1:
            self.notes.append(f"input channels {before} -> 1: the stem's kernels are summed")
        elif after > before:
            self.notes.append(f"input channels {before} -> {after}: the new ones start at zero")
        else:
            self.notes.append(f"input channels {before} -> {after}: the first {after} are kept")

    def apply(self, match: Match) -> bool:
        """Proposes values for one matched layer; False where channels cannot be followed through it."""
        target = self.model.model[match.target]
        incoming = [self._incoming(each) for each in self.model.plan[match.target].sources]
        if match.relation is Relation.PHASES:
            self.maps[match.target] = torch.cat((incoming[0], incoming[0].new_full((3 * len(incoming[0]),), -1)))
        elif isinstance(target, DetectionHead):
            self._take_head({level: level for level in range(len(incoming))}, incoming)
        elif not any(True for _ in target.parameters()):
            outgoing = self._pass_through(target, match, incoming)
            if outgoing is None:
                return False
            self.maps[match.target] = outgoing
        else:
            same_width = self.source.channels[match.source] == self.model.channels[match.target]
            if not (same_width and self._take_layer(match, incoming[0])):
                return False
        self.done.append(match)
        return True

    def _incoming(self, layer: int) -> ChannelMap:
        if layer >= 0:
            return self.maps[layer]
        index = torch.arange(self.images_after)
        return torch.where(index < self.images_before, index, -1)

    def _pass_through(self, target: nn.Module, match: Match, incoming: list[ChannelMap]) -> ChannelMap | None:
        """The channel map behind a layer without parameters."""
        if isinstance(target, Concat):
            shifted, offset = [], 0
            for each, layer in zip(incoming, self.source.plan[match.source].sources, strict=True):
                shifted.append(torch.where(each >= 0, each + offset, -1))
                offset += self.source.channels[layer]
            return torch.cat(shifted)
        if isinstance(target, SPD):
            width = self.source.channels[self.source.plan[match.source].sources[0]]
            phases = range(target.scale**2)
            return torch.cat([torch.where(incoming[0] >= 0, incoming[0] + phase * width, -1) for phase in phases])
        if isinstance(target, (nn.Upsample, nn.MaxPool2d, nn.ZeroPad2d)):
            return incoming[0]
        width = self.source.channels[match.source]
        return torch.arange(width) if _is_identity(incoming[0]) else None

    def _take_layer(self, match: Match, incoming: ChannelMap) -> bool:
        old, new = self.source.model[match.source], self.model.model[match.target]
        forms = strided_form(old), strided_form(new)
        reads_images = self.model.plan[match.target].sources == (-1,)
        changed = forms[1] is not None or reads_images or not _is_identity(incoming)
        names = (weight_name(new),) if forms[1] is not None else INPUT_WEIGHTS.get(type(new), ())
        if changed and not names and not _is_identity(incoming):
            return False
        prefix, source_prefix = f"model.{match.target}.", f"model.{match.source}."
        for name in self._names(prefix):
            # Stems of different types keep their convolution under different names.
            inner = renamed(name.removeprefix(prefix), new, old)
            value = self.state.get(source_prefix + inner)
            if value is None:
                continue
            if changed and name.removeprefix(prefix) in names:
                value = self._read_through(value, match, incoming, forms)
                if match.relation is Relation.REWRITTEN or -1 in incoming:
                    self.rewritten.append(name)
            self.values[name] = value
        outgoing = self.model.channels[match.target]
        self.maps[match.target] = torch.arange(outgoing)
        return True

    def _read_through(
        self, weight: Tensor, match: Match, incoming: ChannelMap, forms: tuple[StridedForm | None, StridedForm | None]
    ) -> Tensor:
        """A weight (O, C_source, ...) rewritten for the target's input channels and its form of the convolution."""
        old, new = self.source.model[match.source], self.model.model[match.target]
        kernel = to_strided(old, weight) if forms[0] is not None else weight
        if self.model.plan[match.target].sources == (-1,) and self.images_after == 1 < self.images_before:
            kernel = kernel.sum(dim=1, keepdim=True)
        elif not _is_identity(incoming) or len(incoming) != kernel.shape[1]:
            kernel = _with_channels(kernel, incoming)
        if forms[0] is not None and forms[1] is not None:
            kernel = from_strided(new, embedded(kernel, forms[0], forms[1]))
        return kernel

    def _take_head(self, levels: Mapping[int, int], incoming: Sequence[ChannelMap] = ()) -> list[int]:
        """The head's levels; which of them were taken.

        ``levels``: of the model, and which of the file's each continues; ``incoming``: the channels that each reads,
        where they are not the file's.
        """
        source, head = self.source.head, self.model.head
        if isinstance(head, AnchorFreeDetect) and isinstance(source, AnchorFreeDetect):
            return self._take_branches(levels, incoming)
        if not (isinstance(head, Detect) and isinstance(source, Detect)):
            self.notes.append("a head of another kind starts fresh")
            return []
        rows = class_rows(self.source.names, self.model.names)
        if rows is None or source.anchor_count != head.anchor_count:
            self.is_exact = False
            self._note_classes(0)
            return []
        taken = set()
        prefix, source_prefix = (f"model.{len(each.plan) - 1}.m." for each in (self.model, self.source))
        for level, old in levels.items():
            for kind in ("weight", "bias"):
                value, fresh = self.state.get(f"{source_prefix}{old}.{kind}"), self.fresh[f"{prefix}{level}.{kind}"]
                if value is None:
                    continue
                if kind == "weight" and incoming and not _is_identity(incoming[level]):
                    value = _with_channels(value, incoming[level])
                if value.shape[1:] == fresh.shape[1:]:
                    self.values[f"{prefix}{level}.{kind}"] = _with_classes(value, fresh, rows, head.anchor_count)
                    taken.add(level)
        self.is_exact = self.is_exact and _is_identity(rows)
        if len(self.source.names) != len(self.model.names):
            self._note_classes(int((rows[5:] >= 0).sum()))
        return sorted(taken)

    def _take_branches(self, levels: Mapping[int, int], incoming: Sequence[ChannelMap] = ()) -> list[int]:
        """Both branches of an anchor-free head where their widths, which depend on the classes, agree; classes by name.

        ``levels``: of the model, and which of the file's each continues. Returns those of which a branch fits.
        """
        rows = class_rows(self.source.names, self.model.names)
        self.is_exact = self.is_exact and rows is not None and _is_identity(rows)
        classes_taken, fitting = False, set()
        ours, theirs = self.model.head, self.source.head
        assert isinstance(ours, AnchorFreeDetect) and isinstance(theirs, AnchorFreeDetect)
        same_depth = levels if ours.form.depth == theirs.form.depth else {}
        kernel = "0.conv.weight" if ours.form.depth else "0.weight"  # what reads the map
        for level, old in same_depth.items():
            for branch in ("cv2", "cv3"):
                prefix, before = (
                    f"model.{len(model.plan) - 1}.{branch}.{number}."
                    for model, number in ((self.model, level), (self.source, old))
                )
                known = self.state.get(f"{before}{kernel}")
                if known is None or not _as_wide(known, self.fresh[f"{prefix}{kernel}"], ours.form.depth):
                    continue
                fitting.add(level)
                for name in self._names(prefix):
                    value, inner = self.state[before + name.removeprefix(prefix)], name.removeprefix(prefix)
                    if inner == kernel and incoming and not _is_identity(incoming[level]):
                        value = _with_channels(value, incoming[level])
                    if branch == "cv3" and inner.startswith(f"{ours.form.depth}."):
                        if rows is None:
                            continue
                        value = _with_classes(value, self.fresh[name], (rows[5:] - 5).clamp(min=-1), anchor_count=1)
                        classes_taken = True
                    self.values[name] = value
        if len(self.source.names) != len(self.model.names):
            self._note_classes(int((rows[5:] >= 0).sum()) if rows is not None and classes_taken else 0)
        elif not fitting:
            self.notes.append("the branches of the head have another form and start fresh")
        return sorted(fitting)

    def _note_classes(self, shared: int) -> None:
        before, after = len(self.source.names), len(self.model.names)
        if before != after:
            kept = f"{shared} of them taken by name" if shared else "the head starts fresh"
            self.notes.append(f"classes {before} -> {after}: {kept}")

    def _names(self, prefix: str) -> list[str]:
        return [name for name in self.fresh if name.startswith(prefix)]

    def take_by_role(self) -> None:
        """Layers that were not matched: from the layer that does the same work, else from that of equal number."""
        self.is_exact = False
        theirs, done = layers_by_role(self.source), {match.target for match in self.done}
        for role, index in layers_by_role(self.model).items():
            if index not in done and role in theirs:
                self._begin(index, theirs[role])
        self._take_equal_names(done | self.origins.keys())
        # Nothing so far: another width throughout, whose head has nothing to read.
        if (done or self.origins) and len(self.model.plan) - 1 not in self.origins:
            ours, files = self.model.strides, self.source.strides
            shared = sorted({*ours} & {*files})
            taken = self._take_head({ours.index(stride): files.index(stride) for stride in shared})
            self.levels = [ours[level] for level in taken]

    def _begin(self, target: int, source: int) -> None:
        """Proposes the values of one layer for another, if they fit."""
        old, new, prefix = self.source.model[source], self.model.model[target], f"model.{source}."
        state = {name.removeprefix(prefix): each for name, each in self.state.items() if name.startswith(prefix)}
        further = further_channels(self.model, target, self.source, source)
        values = tensors_from(old, new, state, further)
        if values is None:
            return
        if further:
            self.notes.append(f"layer {target} reads {further} channels more, which count for nothing at first")
        self.values |= {f"model.{target}.{name}": each for name, each in values.items()}
        self.origins[target] = source
        if signature(old) != signature(new):
            self.rewritten.append(f"model.{target}.{weight_name(new)}")

    def _take_equal_names(self, done: set[int]) -> None:
        """Layers of equal number and type whose tensors all have equal names and shapes."""
        for index in range(min(len(self.model.plan), len(self.source.plan))):
            if index in done or type(self.model.model[index]) is not type(self.source.model[index]):
                continue
            names = self._names(f"model.{index}.")
            if names and all(name in self.state and self.state[name].shape == self.fresh[name].shape for name in names):
                self.values |= {name: self.state[name] for name in names}
                self.origins[index] = index

    def finish(self, source: str, notes: tuple[str, ...], *, is_exact: bool) -> TransferReport:
        """Writes what fits into the model."""
        fitting = {name: value for name, value in self.values.items() if value.shape == self.fresh[name].shape}
        self.model.load_state_dict(fitting, strict=False)
        left = tuple(name for name in self.fresh if name not in fitting)
        return TransferReport(
            source=source,
            total=len(self.fresh),
            taken=tuple(fitting),
            rewritten=tuple(name for name in self.rewritten if name in fitting),
            left=left,
            notes=notes,
            exact=is_exact and not left,
            moved=tuple(f"{index} as {old}" for index, old in self.origins.items() if index != old),
            levels=tuple(self.levels),
        )


def _as_wide(kernel: Tensor, other: Tensor, depth: int) -> bool:
    """Whether the first convolutions of two branches have the same channels inside; without any inside, of the map."""
    return kernel.shape[:1] == other.shape[:1] if depth else kernel.shape[1:] == other.shape[1:]


def class_rows(before: tuple[str, ...], after: tuple[str, ...]) -> Tensor | None:
    """Per anchor, which old output (5 + C_before) each new output (5 + C_after) continues; -1 for a new class.

    Box and objectness continue as they are. Classes go by name; as many classes under all other names go by number.
    None: nothing in common, the head starts fresh.
    """
    place = {name: number for number, name in enumerate(before)}
    by_name = [place.get(name, -1) for name in after]
    if max(by_name) < 0 and len(before) != len(after):
        return None
    classes = torch.tensor(by_name if max(by_name) >= 0 else range(len(after)))
    return torch.cat((torch.arange(5), torch.where(classes >= 0, classes + 5, -1)))


def _with_classes(value: Tensor, fresh: Tensor, rows: Tensor, anchor_count: int) -> Tensor:
    """Head tensor (A (5 + C_before), ...) with its outputs rearranged; new classes keep their fresh values."""
    old = value.reshape(anchor_count, -1, *value.shape[1:])
    new = fresh.reshape(anchor_count, -1, *fresh.shape[1:]).clone()
    new[:, rows >= 0] = old[:, rows[rows >= 0]].to(new)
    return new.reshape(fresh.shape)


def _with_channels(weight: Tensor, channels: ChannelMap) -> Tensor:
    """Weight (O, C_source, ...) for target input channels: the source's where a channel carries one, else zero."""
    moved = weight.new_zeros(weight.shape[0], len(channels), *weight.shape[2:])
    moved[:, channels >= 0] = weight[:, channels[channels >= 0]]
    return moved


def _is_identity(channels: ChannelMap) -> bool:
    return torch.equal(channels, torch.arange(len(channels)))


def _settle_anchors(model: DetectionModel, weights: ModelWeights) -> tuple[bool, list[str]]:
    """Whether the model ends with the file's anchors, and what to say about them."""
    if not (model.anchors.numel() and weights.anchors.numel()):  # equal where neither has any
        return model.anchors.shape == weights.anchors.shape, []
    if model.strides != weights.strides and isinstance(model.architecture.anchors, int):
        return False, [_anchors_by_level(model, weights)]
    if model.anchors.shape != weights.anchors.shape:
        before, after = ("x".join(map(str, each.shape[:2])) for each in (weights.anchors, model.anchors))
        return False, [f"anchors {before} -> {after}: the model's own are kept"]
    if torch.allclose(model.anchors.cpu(), weights.anchors, rtol=1e-3):
        model.set_anchors(weights.anchors)
        return True, []
    if isinstance(model.architecture.anchors, int):
        model.set_anchors(weights.anchors)
        return True, ["anchors are the file's"]
    return False, ["anchors differ from the file's: the model's own are kept"]


def _anchors_by_level(model: DetectionModel, weights: ModelWeights) -> str:
    """Sets open anchors of other levels: the file's where strides are equal, else the nearest level's, scaled."""
    if weights.anchors.shape[1] != model.head.anchor_count:
        return f"anchors per level {weights.anchors.shape[1]} -> {model.head.anchor_count}: the model's own are kept"
    old = nearest_levels(model.strides, weights.strides)
    growth = [stride / weights.strides[level] for stride, level in zip(model.strides, old, strict=True)]
    model.set_anchors(weights.anchors[old] * weights.anchors.new_tensor(growth).view(-1, 1, 1))
    new = [str(stride) for stride in model.strides if stride not in weights.strides]
    return "anchors are the file's" + (f", scaled from the next level at stride {', '.join(new)}" if new else "")


def _layer(name: str) -> int:
    return int(name.split(".")[1])


def _ranges(names: tuple[str, ...]) -> str:
    """Layer numbers as ``0-9, 12``."""
    spans: list[list[int]] = []
    for layer in sorted({_layer(name) for name in names}):
        if spans and layer == spans[-1][1] + 1:
            spans[-1][1] = layer
        else:
            spans.append([layer, layer])
    return ", ".join(f"{a}-{b}" if a != b else str(a) for a, b in spans)


def _named(names: tuple[str, ...]) -> str:
    """Layers with the number of their tensors: ``24 (6 tensors)``."""
    counts = Counter(_layer(name) for name in names)
    shown = [f"{layer} ({count} tensors)" for layer, count in sorted(counts.items())[:NAMED_LAYERS]]
    more = len(counts) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
