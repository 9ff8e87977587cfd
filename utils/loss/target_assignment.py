"""Which (anchor, cell) places of the head learn which object: YOLOv5's shape-ratio matching with neighbour cells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from utils.geometry.boxes import xyxy_to_cxcywh
from utils.geometry.records import Batch, LevelTargets
from utils.runtime.device import sent

# Cell steps (x, y) in the order in which YOLOv5 tries them: the object's own cell, left, up, right, down.
NEIGHBOURS = ((0, 0), (-1, 0), (0, -1), (1, 0), (0, 1))


def assign_targets(
    batch: Batch, anchors: torch.Tensor, stride: int, grid: tuple[int, int], anchor_threshold: float
) -> LevelTargets:
    """Targets of one level of the head.

    An object is matched to every anchor whose width and height are within a factor of ``anchor_threshold`` of its
    own, at its own cell and at the (up to two) cells nearest to its centre, so that the decoded centre
    ``2 sigmoid(t) - 0.5`` reaches it.

    Args:
        batch: objects in network pixels.
        anchors: (A, 2) width and height, pixels.
        stride: pixels per cell.
        grid: rows and columns of cells.
        anchor_threshold: largest ratio between an object's side and the anchor's.
    """
    rows, columns = grid
    boxes = xyxy_to_cxcywh(batch.boxes) / stride  # (M, 4) cells

    ratio = boxes[None, :, 2:] / (anchors[:, None] / stride)  # (A, M, 2)
    anchor, matched = (torch.maximum(ratio, 1 / ratio).amax(dim=2) < anchor_threshold).nonzero(as_tuple=True)
    boxes = boxes[matched]  # (Q, 4)

    # A neighbour takes part if the centre lies in the half of its own cell that borders it and the neighbour exists.
    x, y = boxes[:, 0], boxes[:, 1]
    nearer = torch.stack(
        (
            torch.ones_like(x, dtype=torch.bool),
            (x % 1 < 0.5) & (x > 1),
            (y % 1 < 0.5) & (y > 1),
            (x % 1 > 0.5) & (columns - x > 1),
            (y % 1 > 0.5) & (rows - y > 1),
        )
    )
    step, place = nearer.nonzero(as_tuple=True)  # (P,)

    steps = torch.tensor(NEIGHBOURS, device=boxes.device)[step]
    cells = boxes[place, :2].long() + steps  # the centre is inside the frame, so truncation is the floor
    cell_x, cell_y = cells[:, 0].clamp(0, columns - 1), cells[:, 1].clamp(0, rows - 1)
    centres = boxes[place, :2] - torch.stack((cell_x, cell_y), dim=1)
    objects = matched[place]
    return LevelTargets(
        image=batch.image_index[objects],
        anchor=anchor[place],
        cell_y=cell_y,
        cell_x=cell_x,
        boxes_cells=torch.cat((centres, boxes[place, 2:]), dim=1),
        classes=batch.classes[objects],
    )


class HeadTargets(NamedTuple):
    """What the whole head is trained on: the P assigned places of all levels, the finest level's first.

    The objectness target is set at G <= P of them: of several objects at one place the last counts.
    """

    counts: tuple[int, ...]  # places of each level, P together
    place: tuple[torch.Tensor, ...]  # image, anchor, cell_y, cell_x: each (P,) int64
    classes: torch.Tensor  # (P,) int64
    goal_cell: torch.Tensor  # (G,) int64, counted through all levels' (B, A, H, W), one after the other
    goal_place: torch.Tensor  # (G,) int64, 0..P-1
    boxes_cells: torch.Tensor  # (P, 4) cx cy w h in cells; the centre relative to the place's own cell
    anchors_cells: torch.Tensor  # (P, 2) width and height of the place's anchor, in cells

    def by_level(self, rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The rows (P, ...) of all places as those of each level."""
        return torch.split(rows, list(self.counts))

    def by_filled_level(self, rows: torch.Tensor) -> dict[int, torch.Tensor]:
        """The same by the level's number, without levels that have none."""
        filled = {level: count for level, count in enumerate(self.counts) if count}
        return dict(zip(filled, torch.split(rows, list(filled.values())), strict=True))

    def places_by_level(self) -> Iterator[tuple[torch.Tensor, ...]]:
        """Four indices into each level's (B, A, H, W)."""
        image, anchor, cell_y, cell_x = map(self.by_level, self.place)
        return zip(image, anchor, cell_y, cell_x, strict=True)

    def on(self, device: torch.device) -> HeadTargets:
        """The targets on ``device``: two copies, of integers and of floats, for which the host does not wait."""
        integers = (*self.place, self.classes, self.goal_cell, self.goal_place)
        parts = torch.split(sent(torch.cat(integers), device), [len(each) for each in integers])
        floats = sent(torch.cat((self.boxes_cells, self.anchors_cells), dim=1), device)
        classes, goal_cell, goal_place = parts[4:]
        return HeadTargets(self.counts, parts[:4], classes, goal_cell, goal_place, floats[:, :4], floats[:, 4:])


def head_targets(
    levels: Sequence[LevelTargets], shapes: Sequence[torch.Size], anchors_cells: Sequence[torch.Tensor]
) -> HeadTargets:
    """The levels' targets together.

    Args:
        levels: as `assign_targets` gives them.
        shapes: (B, A, H, W) of each level.
        anchors_cells: (A, 2) of each level, width and height in its cells.
    """
    image, anchor, cell_y, cell_x, boxes_cells, classes = (torch.cat(parts) for parts in zip(*levels, strict=True))
    cells, before = [], 0
    for own, (images, anchors, rows, columns) in zip(levels, shapes, strict=True):
        cells.append(((own.image * anchors + own.anchor) * rows + own.cell_y) * columns + own.cell_x + before)
        before += images * anchors * rows * columns
    cell, place = torch.cat(cells).sort(stable=True)
    is_last = torch.ones_like(cell, dtype=torch.bool)
    is_last[:-1] = cell[1:] != cell[:-1]
    return HeadTargets(
        counts=tuple(len(own.classes) for own in levels),
        place=(image, anchor, cell_y, cell_x),
        classes=classes,
        goal_cell=cell[is_last],
        goal_place=place[is_last],
        boxes_cells=boxes_cells,
        anchors_cells=torch.cat([sizes[own.anchor] for own, sizes in zip(levels, anchors_cells, strict=True)]),
    )
