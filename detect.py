"""Detect objects in images, videos and live streams.

python detect.py --weights yolov5s.pt --source data/images                         a folder
python detect.py --weights best.pt --source image.jpg --save-txt --save-conf     label files with scores
python detect.py --weights best.onnx --source 'flight/**/*.jpg' --imgsz 1280       an exported model, a glob
python detect.py --weights best.pt --source video.mp4 --vid-stride 5               every fifth frame
python detect.py --weights best.pt --source video.mp4 --track --save-mot           objects followed, with ids
python detect.py --weights best.pt --source video.mp4 --count-line 0,240,640,240   who crosses a line, over time
python detect.py --weights best.pt --source rtsp://camera/1                        a stream; or a .streams list of them
python detect.py --weights best.pt --source 0 --view-img                           a camera, in a window
python detect.py --weights best.pt --source large.jpg --slice 640                  small objects: in tiles
"""

from __future__ import annotations

import sys

from utils.config.command_line import parse_command_line
from utils.config.detect_flags import DetectConfig
from utils.runtime.console_log import run_verb


def main() -> None:
    assert __doc__ is not None
    config = parse_command_line(DetectConfig, sys.argv[1:], prog="detect.py", description=__doc__)
    # After parsing, so that --help and a wrong flag answer at once.
    from utils.verbs.detect import run_detection

    run_detection(config)


if __name__ == "__main__":
    sys.exit(run_verb(main))
