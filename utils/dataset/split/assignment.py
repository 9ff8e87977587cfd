"""Which part each group of images goes to, so that parts are alike in images, classes and object sizes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from utils.dataset.label_index import LabelIndex

SIZES = ("small", "medium", "large")
_SIZE_BORDERS = (32.0**2, 96.0**2)  # COCO's, square pixels on disk
TRAIN, VAL = 0, 1
_CANDIDATES = 50  # groups of a class that are looked at for the one that suits a part best


def object_cells(index: LabelIndex) -> tuple[np.ndarray, np.ndarray]:
    """Image (N,) and cell (N,) int64 of every object, the cell being ``3 * class + size``."""
    images = np.repeat(np.arange(len(index)), np.diff(index.row_ends, prepend=0))
    sizes = np.searchsorted(_SIZE_BORDERS, index.object_sizes().prod(axis=1), side="right")
    return images, index.rows[:, 0].astype(np.int64) * len(SIZES) + sizes


def assign_groups(
    group_of: np.ndarray, objects: tuple[np.ndarray, np.ndarray], classes: int, shares: Sequence[float], seed: int
) -> np.ndarray:
    """Part (G,) int64 of each group.

    First every class, the rarest before others, gets a group in train and, if it has two, one in val, as long as these
    lack images. Then the groups follow, large ones first: each goes to the part that it suits best out of those that
    lack images. So no part has more images than its share by a whole group or more.

    Args:
        group_of: group (F,) of each image, -1 for those in none.
        objects: image and cell of every object (`object_cells`).
        classes: number of them.
        shares: of each part, sum 1; 0 for a part that is not wanted.
        seed: of the order of groups of a size.
    """
    parts = _Parts(group_of, objects, classes, shares)
    order = _order(parts, seed)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    for kind in sorted(range(classes), key=lambda kind: len(parts.holders[kind])):
        for part in (TRAIN, VAL):
            parts.seed(kind, part, rank)
    for group in order.tolist():
        if parts.part_of[group] < 0:
            parts.put(group, min(parts.lacking(), key=parts.costs(group).__getitem__))
    parts.fill_empty()
    return parts.part_of


def _order(parts: _Parts, seed: int) -> np.ndarray:
    """Groups (G,): those of many images first, then those of many objects, doublings apart; the rest by chance."""
    chance = np.random.default_rng(seed).permutation(len(parts.images))
    fullness = np.floor(np.log2(parts.objects + 1))
    return np.lexsort((chance, -fullness, -parts.images))


class _Parts:
    """Parts that are being filled.

    What they hold is measured in columns: the objects of each class and size, of each class, and of each size.
    """

    def __init__(
        self, group_of: np.ndarray, objects: tuple[np.ndarray, np.ndarray], classes: int, shares: Sequence[float]
    ) -> None:
        count = int(group_of.max(initial=-1)) + 1
        self.shares = np.array(shares, dtype=np.float64)
        self.images = np.bincount(group_of[group_of >= 0], minlength=count)  # (G,) of each group
        self.part_of = np.full(count, -1, dtype=np.int64)
        self.held_images = np.zeros(len(shares))
        places, cells = objects
        places, cells = places[group_of[places] >= 0], cells[group_of[places] >= 0]
        self.objects = np.bincount(group_of[places], minlength=count)  # (G,)
        first_kind, first_size = classes * len(SIZES), classes * (len(SIZES) + 1)
        columns = first_size + len(SIZES)
        own = np.concatenate([cells, first_kind + cells // len(SIZES), first_size + cells % len(SIZES)])
        keys, numbers = np.unique(np.tile(group_of[places], 3) * columns + own, return_counts=True)
        ends = np.searchsorted(keys, np.arange(1, count) * columns)
        self._columns = np.split(keys % columns, ends)  # of each group, those that it has something in
        totals = np.bincount(keys % columns, weights=numbers, minlength=columns)
        self._numbers = [own / totals[at] for own, at in zip(np.split(numbers, ends), self._columns, strict=True)]
        # Between every object (frequent classes decide all) and every column (one rare object outweighs thousands).
        roots = np.split(np.sqrt(totals), [first_kind, first_size])
        self._weights = np.concatenate([side / max(side.sum(), 1) for side in roots])
        self._held = np.zeros((len(shares), columns))
        self._kinds = (first_kind, first_size)  # columns from and to
        self.holders: list[list[int]] = [[] for _ in range(classes)]  # groups with objects of each class
        for group in range(count):
            for kind in self.kinds(group):
                self.holders[kind].append(group)
        self._free = [len(own) for own in self.holders]  # of these, groups without a part

    def kinds(self, group: int) -> list[int]:
        """Classes of its objects."""
        columns, (start, end) = self._columns[group], self._kinds
        own: list[int] = (columns[(columns >= start) & (columns < end)] - start).tolist()
        return own

    def has(self, part: int, kind: int) -> bool:
        return bool(self._held[part, self._kinds[0] + kind] > 0)

    def put(self, group: int, part: int) -> None:
        self.part_of[group] = part
        self.held_images[part] += self.images[group]
        self._held[part, self._columns[group]] += self._numbers[group]
        for kind in self.kinds(group):
            self._free[kind] -= 1

    def lacking(self) -> list[int]:
        """Parts with fewer images than their share."""
        wanted = self.shares * self.images.sum()
        return np.flatnonzero(self.held_images < wanted - 1e-6).tolist()

    def costs(self, group: int) -> np.ndarray:
        """By how much each part (P,) would be less like its share with this group, below 0 where it lacks it.

        A column's unlikeness is the square of what the part holds beyond its share, divided by the share.
        """
        columns, own = self._columns[group], self._numbers[group]
        total = self.images.sum()
        of_images = self.images[group] / total
        shares = np.maximum(self.shares, 1e-9)
        beyond = self._held[:, columns] - shares[:, None]
        change = (self._weights[columns] * own * (2 * beyond + own)).sum(axis=1)
        change += of_images * (2 * (self.held_images / total - shares) + of_images)
        costs: np.ndarray = change / shares
        return costs

    def seed(self, kind: int, part: int, rank: np.ndarray) -> None:
        """Give the part a group of a class that it has none of, if it lacks images and a group can be spared."""
        if self.has(part, kind) or part not in self.lacking() or (part == VAL and len(self.holders[kind]) < 2):
            return
        free = [group for group in self.holders[kind] if self.part_of[group] < 0 and self._spared(group, part)]
        chosen = sorted(free, key=rank.__getitem__, reverse=True)[:_CANDIDATES]  # small ones first
        if chosen:
            self.put(min(chosen, key=lambda group: float(self.costs(group)[part])), part)

    def _spared(self, group: int, part: int) -> bool:
        """Whether every class of the group has another one for train."""
        return part == TRAIN or all(self._free[kind] > 1 or self.has(TRAIN, kind) for kind in self.kinds(group))

    def fill_empty(self) -> None:
        """Give each part that came away empty the group that suits it best, from the part with most groups."""
        for part in np.flatnonzero((self.shares > 0) & (self.held_images == 0)).tolist():
            groups = np.bincount(self.part_of, minlength=len(self.shares))
            richest = int(groups.argmax())
            if groups[richest] > 1:
                own = np.flatnonzero(self.part_of == richest).tolist()
                group = min(own, key=lambda group: float(self.costs(group)[part]))
                self.held_images[richest] -= self.images[group]
                self._held[richest, self._columns[group]] -= self._numbers[group]
                self.put(group, part)
