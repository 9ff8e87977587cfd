"""``--fitness``: the single figure that the best epoch has most of, as a weighted sum of an evaluation's figures."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from utils.user_error import UsageError, UserError

# COCO's figures, and YOLOv5's two, which are integrated otherwise.
FIGURES = ("AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L", "mAP50", "mAP50-95")
YOLOV5_MIX = "0.1*mAP50+0.9*mAP50-95"
# A weight has no exponent, whose sign would look like the sum's.
TERM = re.compile(r"(?:(?P<weight>\d+\.?\d*|\.\d+)\*)?(?P<figure>[A-Za-z][\w-]*)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Fitness:
    """Weights above 0 of figures, in the order given."""

    terms: tuple[tuple[float, str], ...]

    @classmethod
    def from_text(cls, text: str) -> Fitness:
        """The sum that ``0.3*AP+0.7*AP_S`` or ``AP_S`` names.

        Raises:
            UsageError: of another form, an unknown figure, one that occurs twice, or a weight of 0.
        """
        terms: dict[str, float] = {}
        for part in text.split("+"):
            match = TERM.fullmatch(part.strip())
            if match is None:
                raise UsageError(
                    f"--fitness {text}: {part.strip()!r} is not a figure or a weight * figure, as in 0.3*AP+0.7*AP_S"
                )
            figure, weight = match["figure"], float(match["weight"] or 1)
            if figure not in FIGURES:
                raise UsageError(f"--fitness {text}: {figure!r} is none of {', '.join(FIGURES)}")
            if figure in terms:
                raise UsageError(f"--fitness {text}: {figure} occurs twice")
            if not weight:
                raise UsageError(f"--fitness {text}: the weight of {figure} must be above 0")
            terms[figure] = weight
        return cls(tuple((weight, figure) for figure, weight in terms.items()))

    def of(self, figures: Mapping[str, float]) -> float:
        """The sum over ``figures`` by name, each 0-1.

        Raises:
            UserError: one of them says nothing, as there is no object that it counts: it is below 0 (COCO's -1).
        """
        for _, name in self.terms:
            if figures[name] < 0:
                raise UserError(f"--fitness {self}: the validation images have no object that {name} counts")
        return sum(weight * figures[name] for weight, name in self.terms)

    def __str__(self) -> str:
        return "+".join(name if weight == 1 else f"{weight:g}*{name}" for weight, name in self.terms)
