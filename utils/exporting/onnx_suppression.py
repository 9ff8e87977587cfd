"""Non-maximum suppression in standard ONNX operators, appended to an exported detector."""

from __future__ import annotations

from pathlib import Path

import onnx

from utils.exporting.export_settings import EmbeddedSuppression
from utils.exporting.graph_output import OUTPUT_NAME
from utils.exporting.onnx import opset_of


def embed_suppression(raw: Path, path: Path, suppression: EmbeddedSuppression) -> None:
    """Write the graph in ``raw`` (output as of ``GraphOutput``) to ``path`` with suppression behind it.

    Outputs, K being ``topk_all``, best score first: ``boxes`` (B, K, 4) float xyxy network pixels, ``scores`` (B, K)
    float 0-1, ``classes`` (B, K) int64, ``counts`` (B,) int64; places from ``counts`` on are zero.
    """
    graph = onnx.load(raw)
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
