"""What an ONNX file would reach for, looked at before a runtime opens it.

A graph is a program. The operators of ONNX compute on their inputs and nothing else; but weights
may lie in other files, named by a path, and operators of other domains may do anything. Here the
fields that say so are read from the file (protobuf, `onnx.proto`), without the package `onnx` and
without reading weights.
"""

import mmap
import re
from collections.abc import Iterator
from pathlib import Path

from ovseg.errors import ModelError

_ONNX, _MICROSOFT = ("", "ai.onnx"), "com.microsoft"
_CONTRIBUTED = re.compile(
    r"(Dynamic)?Quantize(Linear|MatMul)|DequantizeLinear|MatMul(NBits|IntegerToFloat)|QLinear\w+"
    r"|QGemm|Fused(MatMul|Gemm|Conv)|(Fast|Bias|Quick)?Gelu|(Skip|SimplifiedLayer|Layer)\w*Norm\w*"
)
"""Operators of ONNX Runtime's own domain that compute and read no files."""

_DEEPEST = 40  # graphs in each other
_MOST_FIELDS = 4_000_000  # some seconds; an export has 100,000
_PLAIN_FILE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")

# Fields by number. Of a model: graph, functions. Of a graph: node, initializer, sparse ones.
_GRAPH, _FUNCTIONS = 7, 25
_NODES, _WEIGHTS, _SPARSE_WEIGHTS, _FUNCTION_NODES = 1, 5, 15, 7
_OPERATOR, _ATTRIBUTES, _DOMAIN = 4, 5, 7  # of a node
_INNER_TENSORS, _INNER_GRAPHS, _INNER_SPARSE = (5, 10), (6, 11), (22, 23)  # of an attribute
_OUTSIDE = 13  # of a tensor: where its values lie


def check_onnx(path: Path) -> None:
    """Refuse a graph with operators of its own, or with weights in files outside its folder.

    Raises:
        ModelError: that, or no ONNX file.
    """
    try:
        with path.open("rb") as stream:
            content = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
        _Checked(path).model(content)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: no ONNX file, or damaged ({error})") from error


class _Checked:
    """Goes through the messages of a file, as many as it may have."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.left = _MOST_FIELDS

    def model(self, content: memoryview) -> None:
        graphs = 0
        for field, value in self.fields(content):
            if field == _GRAPH:
                graphs += 1
                self.graph(value, 0)
            elif field == _FUNCTIONS:
                for inner, node in self.fields(value):
                    if inner == _FUNCTION_NODES:
                        self.node(node, 0)
        if not graphs:
            raise ValueError("there is no graph in it")

    def graph(self, content: memoryview, depth: int) -> None:
        if depth > _DEEPEST:
            raise ValueError("graphs nested too deeply")
        for field, value in self.fields(content):
            if field == _NODES:
                self.node(value, depth)
            elif field == _WEIGHTS:
                self.tensor(value)
            elif field == _SPARSE_WEIGHTS:
                self.sparse(value)

    def node(self, content: memoryview, depth: int) -> None:
        operator = domain = ""
        for field, value in self.fields(content):
            if field == _OPERATOR:
                operator = _text(value)
            elif field == _DOMAIN:
                domain = _text(value)
            elif field == _ATTRIBUTES:
                self.attribute(value, depth)
        contributed = domain == _MICROSOFT and _CONTRIBUTED.fullmatch(operator)
        if domain not in _ONNX and not contributed:
            raise ModelError(
                f"{self.path}: refused: it uses the operator {domain[:50]}.{operator[:50]}, which "
                "no export of ovseg has and which may do anything"
            )

    def attribute(self, content: memoryview, depth: int) -> None:
        for field, value in self.fields(content):
            if field in _INNER_GRAPHS:
                self.graph(value, depth + 1)
            elif field in _INNER_TENSORS:
                self.tensor(value)
            elif field in _INNER_SPARSE:
                self.sparse(value)

    def sparse(self, content: memoryview) -> None:
        for field, value in self.fields(content):
            if field in (1, 2):  # values and indices
                self.tensor(value)

    def tensor(self, content: memoryview) -> None:
        for field, value in self.fields(content):
            if field == _OUTSIDE:
                entry = {
                    number: _text(part) for number, part in self.fields(value) if number in (1, 2)
                }
                if entry.get(1) == "location" and not _PLAIN_FILE.fullmatch(entry.get(2, "")):
                    raise ModelError(
                        f"{self.path}: refused: its weights lie at {entry.get(2, '')[:100]!r}, "
                        "which is not in its folder"
                    )

    def fields(self, content: memoryview) -> Iterator[tuple[int, memoryview]]:
        """Number and bytes of every field that has a length; the others are passed over."""
        at = 0
        while at < len(content):
            self.left -= 1
            if self.left < 0:
                raise ValueError(f"more than {_MOST_FIELDS:,} fields")
            key, at = read_number(content, at)
            field, kind = key >> 3, key & 7
            if kind == 0:
                _, at = read_number(content, at)
                continue
            if kind == 2:
                size, at = read_number(content, at)
            elif kind in (1, 5):
                size = 8 if kind == 1 else 4
            else:
                raise ValueError(f"a field of the kind {kind}")
            if at + size > len(content):
                raise ValueError("a field reaches beyond its message")
            if kind == 2:
                yield field, content[at : at + size]
            at += size


def read_number(content: memoryview, at: int) -> tuple[int, int]:
    """A number of protobuf at a place, and the place behind it; ValueError where it is cut off."""
    value = shift = 0
    while at < len(content) and shift < 70:
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise ValueError("a number is cut off")


def _text(value: memoryview) -> str:
    return bytes(value[:1000]).decode("utf-8", "replace")
