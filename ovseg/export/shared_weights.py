"""Graphs whose weights stay in the safetensors file that they come from.

ONNX lets a weight lie in another file, given by its place there; in a safetensors file weights lie
as ONNX wants them. So a package can carry a model for torch and for ONNX Runtime and its weights
once. Where the graph has a weight transposed or in float32, nodes that say so stand in for it; they
are computed when the file is opened.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_DTYPES: dict[str, np.dtype[Any]] = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4")}
_LEAST_VALUES = 64  # smaller weights cost less than their place


@dataclass(frozen=True)
class Stored:
    """A weight in a safetensors file: its values, and where they lie in bytes."""

    name: str
    values: npt.NDArray
    offset: int
    length: int


def share_weights(graph: Any, weights: Path) -> None:
    """Let the weights of an ONNX graph point into a safetensors file that will lie beside it.

    Args:
        graph: the model, changed in place; what is not in the file stays as it is.
        weights: the file.
    """
    import onnx

    stored = list(read_stored(weights))
    nodes = []
    for tensor in list(graph.graph.initializer):
        if onnx.external_data_helper.uses_external_data(tensor):  # shared with another file
            continue
        values = onnx.numpy_helper.to_array(tensor)
        if values.size < _LEAST_VALUES or values.dtype != np.float32:
            continue
        for one in stored:
            steps = _steps(one.values, values)
            if steps is not None:
                nodes += _stand_in(graph, tensor, one, steps, weights.name)
                break
    kept = list(graph.graph.node)
    del graph.graph.node[:]
    graph.graph.node.extend([*nodes, *kept])


def read_stored(path: Path) -> Iterator[Stored]:
    """The weights of a safetensors file in half or single precision."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    for name, entry in json.loads(content[8 : 8 + size]).items():
        if name == "__metadata__" or entry["dtype"] not in _DTYPES:
            continue
        start, end = (8 + size + place for place in entry["data_offsets"])
        values = np.frombuffer(content[start:end], _DTYPES[entry["dtype"]])
        yield Stored(name, values.reshape(entry["shape"]), start, end - start)


def _steps(stored: npt.NDArray, wanted: npt.NDArray) -> list[str] | None:
    """What makes the wanted weight of a stored one; None if nothing does."""
    if stored.size != wanted.size:
        return None
    casting = [] if stored.dtype == wanted.dtype else ["Cast"]
    if stored.shape == wanted.shape and np.array_equal(stored, wanted):
        return casting
    if stored.T.shape == wanted.shape and np.array_equal(stored.T, wanted):
        return [*casting, "Transpose"]
    return None


def _stand_in(graph: Any, tensor: Any, stored: Stored, steps: list[str], file: str) -> list[Any]:
    """Replace a weight by a stored one and the nodes that make it of that."""
    import onnx

    name = f"stored/{stored.name}"
    if name not in {one.name for one in graph.graph.initializer}:
        graph.graph.initializer.append(_pointing(name, stored, file))
    graph.graph.initializer.remove(tensor)
    nodes = []
    for index, step in enumerate(steps or ["Identity"]):
        output = tensor.name if index == max(len(steps), 1) - 1 else f"{tensor.name}/{step}"
        settings = {"to": onnx.TensorProto.FLOAT} if step == "Cast" else {}
        nodes.append(onnx.helper.make_node(step, [name], [output], output, **settings))
        name = output
    return nodes


def _pointing(name: str, stored: Stored, file: str) -> Any:
    """An ONNX weight that says where its values lie."""
    import onnx

    tensor = onnx.TensorProto(
        name=name,
        dims=stored.values.shape,
        data_type=onnx.helper.np_dtype_to_tensor_dtype(stored.values.dtype),
        data_location=onnx.TensorProto.EXTERNAL,
    )
    for key, value in (("location", file), ("offset", stored.offset), ("length", stored.length)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor
