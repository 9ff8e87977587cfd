"""The peer's suppression, timed inside its own folder: `benchmarks.nms` starts this."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path.cwd()), str(Path(__file__).parent)]

from inputs import nms_rows, print_seconds
from utils.general import non_max_suppression

ROWS = nms_rows()
print_seconds(lambda: non_max_suppression(ROWS.clone(), 0.001, 0.6, multi_label=True, max_det=300))
