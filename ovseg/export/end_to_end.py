"""A graph from a photo to its label map, made around an image graph.

Letters: G group, L label (background and classes), h w grid, H W pixels of the photo.

It does what `Segmenter` does in one pass (without sliding windows): resize, normalise, score, apply
the background rule, bring maps to the photo's own size and label its pixels. Written in ONNX's
textual form, where sizes may be computed.
"""

from pathlib import Path
from typing import Any

from ovseg.export.writers import save_checked
from ovseg.models.interface import Preprocessing
from ovseg.models.manifest import AlignedRule, Kind

OUTPUTS = ("photo_labels", "photo_groups", "photo_scores")

# Sides follow `resized_shape`, in float64 as there; `Round` goes to even like Python's.
_BEFORE = """
<ir_version: {ir}, opset_import: ["" : {opset}]>
before (uint8[H, W, 3] image) => (float[1, 3, rows, columns] before_pixels, int64[2] before_size)
<double short = {{{short_side}}}, double long = {{{long_side}}}, double step = {{{multiple_of}}},
 double half = {{0.5}}, double one = {{1.0}}, int64 first = {{0}}, int64 second = {{1}},
 float[1, 3, 1, 1] mean = {{{mean}}}, float[1, 3, 1, 1] std = {{{std}}},
 int64[1] batch = {{0}}, int32 sixteen = {{16}}, int32 shift = {{65536}}, int32 two = {{2}},
 int32 four = {{4}}, int64[1] columns_axes = {{1}},
 int64[2] rows_axes = {{1, 2}}, float float_zero = {{0.0}}, float float_one = {{1.0}},
 float fine = {{2048.0}}, int64 int_zero = {{0}}, int64 int_one = {{1}}>
{{
    before_size = Shape <start = 0, end = 2> (image)
    sides = Cast <to = 11> (before_size)
    longest = ReduceMax <keepdims = 0> (sides)
    shortest = ReduceMin <keepdims = 0> (sides)
    to_long = Div (long, longest)
    to_short = Div (short, shortest)
    scale = Min (to_long, to_short)
    scaled = Mul (sides, scale)
    nearer = Add (scaled, half)
    whole = Floor (nearer)
    steps = Div (whole, step)
    rounded = Round (steps)
    some = Max (rounded, one)
    wanted_float = Mul (some, step)
    wanted = Cast <to = 7> (wanted_float)
    levels = Cast <to = 6> (image)
{columns}
    left = Gather <axis = 1> (levels, columns_low)
    right = Gather <axis = 1> (levels, columns_high)
    left_share = Mul (left, columns_low_weight)
    right_share = Mul (right, columns_high_weight)
    wide = Add (left_share, right_share)
{rows}
    coarse = Div (wide, sixteen)
    upper = Gather <axis = 0> (coarse, rows_low)
    lower = Gather <axis = 0> (coarse, rows_high)
    upper_product = Mul (upper, rows_low_weight)
    lower_product = Mul (lower, rows_high_weight)
    upper_share = Div (upper_product, shift)
    lower_share = Div (lower_product, shift)
    both = Add (upper_share, lower_share)
    nearly = Add (both, two)
    resized = Div (nearly, four)
    values = Cast <to = 1> (resized)
    channels = Transpose <perm = [2, 0, 1]> (values)
    batched = Unsqueeze (channels, batch)
    centred = Sub (batched, mean)
    before_pixels = Div (centred, std)
}}
"""

# OpenCV's bilinear rule for bytes: weights in steps of 1/2048, integer arithmetic. Being exact
# matters, since a level of difference here and there flips labels that are nearly tied.
_TAPS = """
    {axis}_before = Gather (before_size, {index})
    {axis}_after = Gather (wanted, {index})
    {axis}_side = Cast <to = 11> ({axis}_before)
    {axis}_wanted = Cast <to = 11> ({axis}_after)
    {axis}_range = Range (int_zero, {axis}_after, int_one)
    {axis}_numbers = Cast <to = 11> ({axis}_range)
    {axis}_centres = Add ({axis}_numbers, half)
    {axis}_ratio = Div ({axis}_side, {axis}_wanted)
    {axis}_scaled = Mul ({axis}_centres, {axis}_ratio)
    {axis}_exact = Sub ({axis}_scaled, half)
    {axis}_source = Cast <to = 1> ({axis}_exact)
    {axis}_floor = Floor ({axis}_source)
    {axis}_share = Sub ({axis}_source, {axis}_floor)
    {axis}_index = Cast <to = 7> ({axis}_floor)
    {axis}_last = Sub ({axis}_before, int_one)
{inner}
    {axis}_rest = Sub (float_one, {axis}_inner)
    {axis}_next = Add ({axis}_index, int_one)
    {axis}_low = Clip ({axis}_index, int_zero, {axis}_last)
    {axis}_high = Clip ({axis}_next, int_zero, {axis}_last)
    {axis}_low_fine = Mul ({axis}_rest, fine)
    {axis}_high_fine = Mul ({axis}_inner, fine)
    {axis}_low_level = Round ({axis}_low_fine)
    {axis}_high_level = Round ({axis}_high_fine)
    {axis}_low_flat = Cast <to = 6> ({axis}_low_level)
    {axis}_high_flat = Cast <to = 6> ({axis}_high_level)
    {axis}_low_weight = Unsqueeze ({axis}_low_flat, {axis}_axes)
    {axis}_high_weight = Unsqueeze ({axis}_high_flat, {axis}_axes)
"""

# Beyond the outermost pixels OpenCV drops the share of the second column, but not that of the
# second row, which is then the same row again.
_INNER_COLUMNS = """
    beyond = GreaterOrEqual (columns_index, columns_last)
    ahead = Less (columns_index, int_zero)
    outside = Or (beyond, ahead)
    columns_inner = Where (outside, float_zero, columns_share)
"""
_INNER_ROWS = "    rows_inner = Identity (rows_share)"

_GROUPS = """
<ir_version: {ir}, opset_import: ["" : {opset}]>
after (float[1, G, N] shares, float[1, G, L] scores_in, float[1, 3, R, C] pixels_in,
       int64[2] size, float threshold_in)
    => (int64[H, W] labels, int64[H, W] groups, float[G, L] scores)
<int64[1] batch = {{0}}, int64 cell = {{{cell}}}>
{{
    network = Shape <start = 2, end = 4> (pixels_in)
    grid = Div (network, cell)
    count = Shape <start = 0, end = 2> (shares)
    folded = Concat <axis = 0> (count, grid)
    maps = Reshape (shares, folded)
    sizes = Concat <axis = 0> (count, size)
    large = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel">
        (maps, , , sizes)
    winner = ArgMax <axis = 1, keepdims = 0> (large)
    groups = Squeeze (winner, batch)
    scores = Squeeze (scores_in, batch)
    label_of_group = ArgMax <axis = 1, keepdims = 0> (scores)
    labels = Gather <axis = 0> (label_of_group, groups)
}}
"""

_POSITIONS = """
<ir_version: {ir}, opset_import: ["" : {opset}]>
after (float[1, G, N] shares, float[1, G, L] scores_in, float[1, 3, R, C] pixels_in,
       int64[2] size, float threshold_in)
    => (int64[H, W] labels, int64[H, W] groups, float[G, L] scores)
<int64[1] batch = {{0}}, int64 cell = {{{cell}}}, int64 zero = {{0}}, int64 one = {{1}},
 int64 two = {{2}}, int64[1] column = {{1}}, float lowest = {{-1e30}}{more}>
{{
    network = Shape <start = 2, end = 4> (pixels_in)
    grid = Div (network, cell)
    scores = Squeeze (scores_in, batch)
    by_label = Transpose <perm = [0, 2, 1]> (scores_in)
    count = Shape <start = 0, end = 2> (by_label)
    folded = Concat <axis = 0> (count, grid)
    bounded = Max (by_label, lowest)
    maps = Reshape (bounded, folded)
    sizes = Concat <axis = 0> (count, size)
{rule}
    labels = Squeeze (winner, batch)
    height = Gather <axis = 0> (size, zero)
    width = Gather <axis = 0> (size, one)
    rows = Gather <axis = 0> (grid, zero)
    columns = Gather <axis = 0> (grid, one)
    every_row = Range (zero, height, one)
    every_column = Range (zero, width, one)
    twice_row = Mul (every_row, two)
    twice_column = Mul (every_column, two)
    centre_row = Add (twice_row, one)
    centre_column = Add (twice_column, one)
    scaled_row = Mul (centre_row, rows)
    scaled_column = Mul (centre_column, columns)
    twice_height = Mul (height, two)
    twice_width = Mul (width, two)
    row = Div (scaled_row, twice_height)
    near_column = Div (scaled_column, twice_width)
    row_start = Mul (row, columns)
    row_column = Unsqueeze (row_start, column)
    groups = Add (row_column, near_column)
}}
"""

_LARGEST_SCORE = """
    large = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel">
        (maps, , , sizes)
    winner = ArgMax <axis = 1, keepdims = 0> (large)
"""

_CLASS_CONSTANTS = """,
 int64[1] first = {{1}}, int64[1] last = {{9223372036854775807}}, int64[1] label_axis = {{1}}"""

_CLASSES = """
    classes_only = Slice (maps, first, last, label_axis)
    class_count = Shape <start = 0, end = 2> (classes_only)
    class_sizes = Concat <axis = 0> (class_count, size)
    large = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel">
        (classes_only, , , class_sizes)
    shares_at = Softmax <axis = 1> (large)
    certainty = ReduceMax <keepdims = 0> (shares_at, label_axis)
    best = ArgMax <axis = 1, keepdims = 0> (large)
    label = Add (best, one)
    unsure = Less (certainty, threshold_in)
    winner = Where (unsure, zero, label)
"""


def write_end_to_end(
    image_graph: Path,
    path: Path,
    rule: Preprocessing,
    kind: Kind,
    cell: int,
    aligned: AlignedRule | None = None,
    softmax: bool = False,
) -> None:
    """Write the graph from `image` (uint8 [H, W, 3]) to `labels` and `groups` [H, W] and `scores`.

    Args:
        image_graph: an ONNX file of an image graph, in float32 or int8.
        path: the file to write.
        rule: how images reach the image graph.
        kind: family of the model.
        cell: pixels from one position of its grid to the next.
        aligned: how an aligned model's maps are made.
        softmax: whether classes are compared by a softmax at the pixels.
    """
    import onnx

    inner = onnx.load(image_graph)
    opset = next(one.version for one in inner.opset_import if one.domain in ("", "ai.onnx"))
    values = {"ir": inner.ir_version, "opset": opset, "cell": cell, **_constants(rule)}
    before = onnx.parser.parse_model(_BEFORE.format(**values))
    after = onnx.parser.parse_model(_after(kind, aligned, softmax).format(**values))
    save_checked(_joined(before, inner, after), path)


def _joined(before: Any, inner: Any, after: Any) -> Any:
    """One graph of the nodes of three: names say where one hands over to the next."""
    import onnx

    whole = onnx.ModelProto()
    whole.CopyFrom(inner)
    graph = whole.graph
    parts = [
        onnx.compose.add_prefix_graph(before.graph, "before/"),
        onnx.compose.add_prefix_graph(after.graph, "after/"),
    ]
    handed_over = {
        "after/pixels_in": "pixels",
        "after/shares": "assignment",
        "after/scores_in": "scores",
        "after/threshold_in": "threshold",
        "before/before_pixels": "pixels",
        "after/size": "before/before_size",
        "before/image": "image",
        "after/labels": "photo_labels",
        "after/groups": "photo_groups",
        "after/scores": "photo_scores",
    }
    for part in parts:
        for node in part.node:
            node.input[:] = [handed_over.get(name, name) for name in node.input]
            node.output[:] = [handed_over.get(name, name) for name in node.output]
    nodes = [*parts[0].node, *graph.node, *parts[1].node]
    image = onnx.ValueInfoProto()
    image.CopyFrom(before.graph.input[0])
    inputs = [image, *(one for one in graph.input if one.name != "pixels")]
    outputs = []
    for made in after.graph.output:
        output = onnx.ValueInfoProto()
        output.CopyFrom(made)
        output.name = f"photo_{made.name}"
        outputs.append(output)
    initializers = [*graph.initializer, *parts[0].initializer, *parts[1].initializer]
    joined = onnx.helper.make_graph(nodes, "end_to_end", inputs, outputs, initializers)
    del whole.graph.value_info[:]
    whole.graph.CopyFrom(joined)
    return whole


def _after(kind: Kind, aligned: AlignedRule | None, softmax: bool) -> str:
    if kind == "ovsegmentor" or (aligned is not None and aligned.groups):
        return _GROUPS
    chosen = _CLASSES if softmax else _LARGEST_SCORE
    if aligned is not None and aligned.align_corners:
        chosen = chosen.replace("half_pixel", "align_corners")
    more = _CLASS_CONSTANTS if softmax else ""
    return _POSITIONS.replace("{rule}", chosen).replace("{more}", more)


def _constants(rule: Preprocessing) -> dict[str, Any]:
    return {
        "short_side": float(rule.short_side),
        "long_side": float(rule.long_side),
        "multiple_of": float(rule.multiple_of),
        "rows": _TAPS.format(axis="rows", index="first", inner=_INNER_ROWS),
        "columns": _TAPS.format(axis="columns", index="second", inner=_INNER_COLUMNS),
        "mean": ", ".join(map(repr, map(float, rule.mean))),
        "std": ", ".join(map(repr, map(float, rule.std))),
    }
