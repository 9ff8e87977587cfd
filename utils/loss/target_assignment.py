"""Which (anchor, cell) places of the head learn which object: YOLOv5's shape-ratio matching with neighbour cells."""

from __future__ import annotations

import torch

from utils.geometry.boxes import xyxy_to_cxcywh
from utils.geometry.records import Batch, LevelTargets

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
