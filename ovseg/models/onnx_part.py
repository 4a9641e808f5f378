"""The part of an ONNX file that some of its outputs need, as a file of its own.

ONNX Runtime computes all of a graph, whatever outputs are asked for: of a model that gives classes
and labels besides embeddings, it would make these for nothing. Cut on the bytes of the file
(protobuf, `onnx.proto`), without the package `onnx`; what is kept is not decoded.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ovseg.models.onnx_file import read_number

_VARINT, _EIGHT_BYTES, _CHUNK, _FOUR_BYTES = 0, 1, 2, 5  # how protobuf stores a field
_GRAPH = 7  # of a model
_NODES, _WEIGHTS, _INPUTS, _OUTPUTS, _VALUES = 1, 5, 11, 12, 13  # of a graph
_TAKEN, _MADE, _ATTRIBUTES = 1, 2, 5  # of a node
_INNER_GRAPHS = (6, 11)  # of an attribute
_NAMES = {_WEIGHTS: 8, _INPUTS: 1, _OUTPUTS: 1, _VALUES: 1}
"""Of what has a name, which field of it that is."""


class _Field(NamedTuple):
    """A field of a message.

    Attributes:
        number: which.
        value: its bytes; empty where it is a number.
        whole: these with what stands before them in the message.
    """

    number: int
    value: memoryview
    whole: memoryview


def part_of(content: bytes, outputs: Sequence[str]) -> bytes:
    """The file without the nodes and weights that these outputs do not need.

    Raises:
        ValueError: it is damaged.
    """
    pieces: list[bytes | memoryview] = []
    for field in _fields(memoryview(content)):
        if field.number == _GRAPH:
            graph = b"".join(_part_of_graph(list(_fields(field.value)), set(outputs)))
            pieces += [_varint(_GRAPH << 3 | _CHUNK), _varint(len(graph)), graph]
        else:
            pieces.append(field.whole)
    return b"".join(pieces)


def _part_of_graph(fields: list[_Field], outputs: set[str]) -> Iterator[memoryview]:
    """Nodes follow those that they need: so the last come first."""
    needed, left_out = set(outputs), set()
    for place in reversed(range(len(fields))):
        if fields[place].number == _NODES:
            node = list(_fields(fields[place].value))
            if needed.isdisjoint(_texts(node, _MADE)):
                left_out.add(place)
            else:
                needed.update(_taken(node))
    for place, field in enumerate(fields):
        name = _NAMES.get(field.number)
        wanted = outputs if field.number == _OUTPUTS else needed
        unnamed = name is None or not wanted.isdisjoint(_texts(_fields(field.value), name))
        if place not in left_out and unnamed:
            yield field.whole


def _taken(node: list[_Field]) -> Iterator[str]:
    """Names that a node needs, those that graphs within it need too."""
    yield from _texts(node, _TAKEN)
    for attribute in node:
        if attribute.number == _ATTRIBUTES:
            for graph in _fields(attribute.value):
                if graph.number in _INNER_GRAPHS:
                    for inner in _fields(graph.value):
                        if inner.number == _NODES:
                            yield from _taken(list(_fields(inner.value)))
                        elif inner.number == _OUTPUTS:
                            yield from _texts(_fields(inner.value), _NAMES[_OUTPUTS])


def _texts(message: Iterable[_Field], number: int) -> list[str]:
    return [bytes(field.value).decode() for field in message if field.number == number]


def _fields(content: memoryview) -> Iterator[_Field]:
    at = 0
    while at < len(content):
        start = at
        key, at = read_number(content, at)
        kind, size = key & 7, 0
        if kind == _VARINT:
            _, at = read_number(content, at)
        elif kind == _CHUNK:
            size, at = read_number(content, at)
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            at += 8 if kind == _EIGHT_BYTES else 4
        else:
            raise ValueError(f"a field of the kind {kind}")
        if at + size > len(content):
            raise ValueError("a field reaches beyond its message")
        yield _Field(key >> 3, content[at : at + size], content[start : at + size])
        at += size


def _varint(value: int) -> bytes:
    """A number as protobuf stores it, seven bits a byte."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])
