"""ONNX: the graph in standard operators, with YOLOv5's metadata; its FP16 form; and suppression behind it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch

from models.classifier import Classifier
from utils.exporting.decoding_nodes import decoding_of_onnx
from utils.exporting.export_settings import EmbeddedSuppression, ExportSettings
from utils.exporting.graph_output import INPUT_NAME, OUTPUT_NAME, ExportableModel, GraphOutput, file_metadata
from utils.user_error import UsageError

LOGGER = logging.getLogger(__name__)

USUAL_OPSET = 17
TRACED_OPSET = 18  # torch writes this one and later; earlier ones are converted from it
FREE_AXES = {0: "batch", 2: "height", 3: "width"}  # of the images, with --dynamic
OLDEST_CONVERTED = 15  # below, onnx's conversion knows none of the operators here; the graph is rewritten instead


def write_onnx(model: ExportableModel, path: Path, settings: ExportSettings) -> None:
    """Write ``model`` (in evaluation mode) to ``path``: input ``images``, output ``output0`` (``GraphOutput``).

    Raises:
        UsageError: the graph cannot be expressed in ``settings.opset``.
    """
    graph = _expressed(model, path, settings, settings.opset or USUAL_OPSET)
    if graph is None and settings.opset is None:
        LOGGER.info("ONNX: this graph needs operator set %d", TRACED_OPSET)
        graph = _expressed(model, path, settings, TRACED_OPSET)
    if graph is None:
        raise UsageError(f"--opset {settings.opset}: this graph cannot be expressed in it; {TRACED_OPSET} always can")
    if settings.simplify:
        import onnxslim

        graph = onnxslim.slim(graph)
    onnx.helper.set_model_props(graph, {key: str(value) for key, value in file_metadata(model, settings).items()})
    onnx.checker.check_model(graph)
    onnx.save(graph, path)


def _expressed(model: ExportableModel, path: Path, settings: ExportSettings, opset: int) -> onnx.ModelProto | None:
    """The graph in an operator set, by way of the file ``path``; None where that set cannot express it."""
    device = next(model.parameters()).device
    batch_size, channels, height, width = settings.input_shape
    axes = None
    if settings.dynamic:  # torch.export takes a length of 1 as a constant, of any map
        batch_size, height, width = max(batch_size, 2), max(height, 2 * model.stride), max(width, 2 * model.stride)
        axes = _free_axes(model)
    with torch.no_grad(), _quiet():
        torch.onnx.export(
            GraphOutput(model),
            (torch.zeros(batch_size, channels, height, width, device=device),),
            str(path),
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            opset_version=TRACED_OPSET if opset < OLDEST_CONVERTED else opset,
            dynamic_shapes=axes,
            # The older exporter (dynamo=False) writes wrong answers without a word: it takes the grid of the head for
            # a constant under dynamic axes, and changes the weights of the model that it is given.
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        graph = onnx.load(path)
    if settings.dynamic:
        for number, name in FREE_AXES.items():
            graph.graph.input[0].type.tensor_type.shape.dim[number].dim_param = name
    if opset < OLDEST_CONVERTED:
        _rewrite_for(graph, opset)
    return graph if opset_of(graph) == opset and _is_valid(graph) else None


def _free_axes(model: ExportableModel) -> tuple[dict[int, object], ...]:
    """Any number of images of any size; for a detector multiples of its stride, so that maps of a stride are equal."""
    if isinstance(model, Classifier):
        return (dict(FREE_AXES),)
    batch, height, width = (torch.export.Dim(name) for name in FREE_AXES.values())
    return (dict(zip(FREE_AXES, (batch, model.stride * height, model.stride * width), strict=True)),)


def _rewrite_for(graph: onnx.ModelProto, opset: int) -> None:
    """Give the nodes of a traced graph the form that they have in operator set 12, 13 or 14.

    What computes these networks has changed only in form since then: settings that came later, at their defaults here,
    go; ``Shape`` of some axes is a ``Slice`` of all; ``Resize`` names a region, if an empty one. Whatever else such a
    set does not know is left for ``_is_valid`` to find.
    """
    if opset < 12:
        return
    nodes = []
    region = onnx.helper.make_tensor("no_region", onnx.TensorProto.FLOAT, [0], [])
    for node in graph.graph.node:
        settings = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        if not onnx.defs.has(node.op_type, opset, node.domain):
            return
        known = onnx.defs.get_schema(node.op_type, opset, node.domain).attributes
        present = onnx.defs.get_schema(node.op_type, TRACED_OPSET, node.domain).attributes
        for name in settings.keys() - known.keys():
            default = onnx.helper.get_attribute_value(present[name].default_value)
            # No map here has a side of 0, of which `allowzero` speaks.
            if settings[name] == default or name in ("allowzero", "start", "end"):
                node.attribute.remove(next(each for each in node.attribute if each.name == name))
        nodes.append(node)
        if node.op_type == "Resize" and not node.input[1]:
            node.input[1] = region.name
        if node.op_type == "Shape" and ("start" in settings or "end" in settings):
            (output,) = node.output
            node.output[0] = f"{output}_of_all_axes"
            bounds = {"from": settings.get("start", 0), "to": settings.get("end", 2**63 - 1)}
            for name, value in bounds.items():
                graph.graph.initializer.append(
                    onnx.helper.make_tensor(f"{output}_{name}", onnx.TensorProto.INT64, [1], [value])
                )
            nodes.append(onnx.helper.make_node("Slice", [*node.output, *(f"{output}_{b}" for b in bounds)], [output]))
    copied = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.graph.node[:], graph.graph.value_info[:]
    graph.graph.node.extend(copied)
    graph.graph.initializer.append(region)
    next(each for each in graph.opset_import if each.domain in ("", "ai.onnx")).version = opset
    graph.ir_version = onnx.helper.find_min_ir_version_for(list(graph.opset_import))


def opset_of(graph: onnx.ModelProto) -> int:
    """Version of the standard operators that a graph uses."""
    return int(next(entry.version for entry in graph.opset_import if entry.domain in ("", "ai.onnx")))


def _is_valid(graph: onnx.ModelProto) -> bool:
    """Whether it keeps to its own operator set: the conversion leaves what it does not know as it was."""
    try:
        onnx.checker.check_model(graph)
    except onnx.checker.ValidationError:
        return False
    return True


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's own remarks off the console: what it got wrong is measured afterwards."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def halve_onnx(source: Path, target: Path) -> None:
    """Write the FP16 form of an ONNX file: half the size; input, output and decoding stay in float32."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = onnx.load(source)
    kept = decoding_of_onnx(model.graph)
    onnx.save(convert_float_to_float16(model, keep_io_types=True, node_block_list=kept), target)


def embed_suppression(raw: Path, path: Path, suppression: EmbeddedSuppression) -> None:
    """Write the graph in ``raw`` (output as of ``GraphOutput``) to ``path`` with suppression behind it.

    Outputs, K being ``topk_all``, best score first: ``boxes`` (B, K, 4) float xyxy network pixels, ``scores`` (B, K)
    float 0-1, ``classes`` (B, K) int64, ``counts`` (B,) int64; places from ``counts`` on are zero.

    Raises:
        UsageError: the graph is in an operator set that suppression cannot be written in.
    """
    graph = onnx.load(raw)
    if opset_of(graph) < 13:
        raise UsageError(f"--nms --opset {opset_of(graph)}: suppression is written in operator set 13 and later")
    properties = {entry.key: entry.value for entry in graph.metadata_props}
    header = f'<ir_version: {graph.ir_version}, opset_import: ["" : {opset_of(graph)}]>'
    tail = onnx.parser.parse_model(header + suppression_graph(suppression))
    tail = onnx.compose.add_prefix(tail, "suppression/", rename_inputs=False, rename_outputs=False)
    merged = onnx.compose.merge_models(graph, tail, io_map=[(OUTPUT_NAME, OUTPUT_NAME)])
    onnx.helper.set_model_props(merged, properties)
    onnx.checker.check_model(merged, full_check=True)
    onnx.save(merged, path)


def suppression_graph(settings: EmbeddedSuppression) -> str:
    """The suppression of rows (B, N, 5 + C), in ONNX's text syntax.

    M is the number of boxes kept over the whole batch, G the number of suppressed groups: C, or 1 when agnostic.
    """
    k = settings.topk_all
    if settings.agnostic:
        groups = "best, best_class = TopK <axis = 2> (class_scores, one)"
        group_scores, kept_class = "best", "GatherND (class_by_group, selected)"
        class_by_group = "class_by_group = Transpose <perm = [0, 2, 1]> (best_class)"
    else:
        groups, class_by_group = "", ""
        group_scores, kept_class = "class_scores", "Gather <axis = 1> (selected, second)"
    return f"""
    suppression (float[batch, places, values] {OUTPUT_NAME}) => (
        float[batch, {k}, 4] boxes, float[batch, {k}] scores, int64[batch, {k}] classes, int64[batch] counts)
    <
        int64[1] one = {{1}}, int64[1] two = {{2}}, int64[1] four = {{4}}, int64[1] five = {{5}},
        int64[1] origin = {{0}}, int64[1] end = {{9223372036854775807}}, int64[1] all_k = {{{k}}},
        int64[1] per_class = {{{settings.topk_per_class}}},
        int64 first = {{0}}, int64 second = {{1}}, int64 third = {{2}}, int64[1] last = {{-1}},
        float half = {{0.5}}, float nothing = {{0.0}}, int64 no_place = {{0}},
        float[1] iou = {{{settings.iou_thres!r}}}, float[1] confidence = {{{settings.conf_thres!r}}}
    >
    {{
        centres = Slice ({OUTPUT_NAME}, origin, two, two)
        sizes = Slice ({OUTPUT_NAME}, two, four, two)
        objectness = Slice ({OUTPUT_NAME}, four, five, two)
        class_probs = Slice ({OUTPUT_NAME}, five, end, two)
        half_sizes = Mul (sizes, half)
        top_left = Sub (centres, half_sizes)
        bottom_right = Add (centres, half_sizes)
        corners = Concat <axis = 2> (top_left, bottom_right)
        class_scores = Mul (objectness, class_probs)
        {groups}
        {class_by_group}
        by_group = Transpose <perm = [0, 2, 1]> ({group_scores})

        selected = NonMaxSuppression (corners, by_group, per_class, iou, confidence)
        image = Gather <axis = 1> (selected, first)
        place = Gather <axis = 1> (selected, third)
        class = {kept_class}
        score = GatherND (by_group, selected)

        batch_shape = Shape ({OUTPUT_NAME})
        batch_size = Gather (batch_shape, first)
        images = Range (first, batch_size, second)
        column = Unsqueeze (images, one)
        mine = Equal (column, image)
        my_scores = Where (mine, score, nothing)
        batch_size_1 = Gather (batch_shape, origin)
        empty_shape = Concat <axis = 0> (batch_size_1, all_k)
        empty_scores = Expand (nothing, empty_shape)
        empty_places = Expand (no_place, all_k)
        filled_up = Concat <axis = 1> (my_scores, empty_scores)
        scores, rank = TopK <axis = 1> (filled_up, all_k)
        is_filled = Greater (scores, nothing)

        places_filled_up = Concat <axis = 0> (place, empty_places)
        classes_filled_up = Concat <axis = 0> (class, empty_places)
        ranked_places = Gather <axis = 0> (places_filled_up, rank)
        ranked_classes = Gather <axis = 0> (classes_filled_up, rank)
        classes = Where (is_filled, ranked_classes, no_place)
        place_rows = Unsqueeze (ranked_places, last)
        ranked_boxes = GatherND <batch_dims = 1> (corners, place_rows)
        filled_rows = Unsqueeze (is_filled, last)
        boxes = Where (filled_rows, ranked_boxes, nothing)
        ones = Cast <to = 7> (is_filled)
        counts = ReduceSum <keepdims = 0> (ones, one)
    }}"""
