"""ncnn on the CPU: a folder with the graph, its weights, and the metadata in a YAML file."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from utils.geometry.letterbox import FrameSize
from utils.inference.runtime_graph import RuntimeGraph, Tensors, described_graph
from utils.user_error import UserError

LOGGER = logging.getLogger(__name__)

NCNN_SUFFIX = "_ncnn_model"
NCNN_GRAPH, NCNN_WEIGHTS, NCNN_METADATA = "model.ncnn.param", "model.ncnn.bin", "metadata.yaml"


def open_ncnn(path: Path, device: torch.device) -> RuntimeGraph:
    """An ncnn folder on the CPU, computing in float32, FP16 weights too.

    Raises:
        UserError: not readable, of unknown size, or ncnn is not installed.
    """
    if find_spec("ncnn") is None:
        raise UserError(f"{path}: needs ncnn (pip install ncnn)")
    for name in (NCNN_GRAPH, NCNN_WEIGHTS, NCNN_METADATA):
        if not (path / name).is_file():
            raise UserError(f"{path / name}: missing; an ncnn export has it")
    metadata = _metadata(path / NCNN_METADATA)
    frame = _frame(path / NCNN_METADATA, metadata)
    if device.type != "cpu":
        LOGGER.warning("%s: ncnn runs on the CPU", path)
    network = _network(path)
    entries, exits = network.input_names(), network.output_names()
    if len(entries) != 1 or len(exits) != 1:
        raise UserError(f"{path}: has {len(entries)} inputs and {len(exits)} outputs; a detector has one of each")
    import ncnn

    def run(images: torch.Tensor) -> Tensors:
        rows = []
        for image in images.cpu().float().numpy():  # it knows no batches
            extractor = network.create_extractor()
            pixels = np.ascontiguousarray(image)  # read where it is: it has to live as long as the extractor
            extractor.input(entries[0], ncnn.Mat(pixels))
            code, output = extractor.extract(exits[0])
            if code:
                raise UserError(f"{path}: ncnn could not run it (code {code})")
            rows.append(torch.from_numpy(np.array(output)))  # a copy: the memory is the extractor's
        return {"output0": torch.stack(rows)}

    return described_graph(path, run, metadata, [1, 3, *frame])


def _network(path: Path) -> Any:
    import ncnn

    network = ncnn.Net()
    options = network.opt
    options.num_threads = torch.get_num_threads()
    # By default it stores and computes in FP16 where the processor can, coordinates of boxes too.
    options.use_fp16_packed = options.use_fp16_storage = options.use_fp16_arithmetic = False
    graph, weights = path / NCNN_GRAPH, path / NCNN_WEIGHTS
    if network.load_param(str(graph)):
        raise UserError(f"{graph}: not a graph that this ncnn ({ncnn.__version__}) can read")
    if network.load_model(str(weights)):
        raise UserError(f"{weights}: not the weights of {graph.name}")
    return network


def _metadata(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        raise UserError(f"{file}: not readable YAML") from None
    if not isinstance(content, dict):
        raise UserError(f"{file}: holds no metadata of a model")
    return content


def _frame(file: Path, metadata: dict[str, Any]) -> FrameSize:
    """The only size that a graph takes, which itself does not say."""
    sides = metadata.get("imgsz")
    if isinstance(sides, list) and len(sides) == 2 and all(isinstance(side, int) and side > 0 for side in sides):
        return FrameSize(*sides)
    raise UserError(f"{file}: imgsz is {sides!r}; height and width of the graph's input are needed")
