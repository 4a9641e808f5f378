"""The part of an ONNX file that some outputs need."""

import numpy as np
import pytest

pytest.importorskip("onnx")

import onnx
from onnx import TensorProto, helper, numpy_helper

from ovseg.models.onnx_part import part_of
from ovseg.models.runtimes import OnnxGraph
from tests.conftest import ROOT

MADE = ROOT / "ovseg/models/starter/graph.onnx"


def port(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [2])


def branching() -> bytes:
    """Twice x; and, where `yes` is, that and a weight, else that alone."""
    inside = [
        helper.make_graph([helper.make_node("Add", ["twice", name], ["z"])], name, [], [port("z")])
        for name in ("far", "near")
    ]
    nodes = [
        helper.make_node("Add", ["x", "x"], ["twice"]),
        helper.make_node("Mul", ["y", "unused"], ["other"]),
        helper.make_node("If", ["yes"], ["chosen"], then_branch=inside[0], else_branch=inside[1]),
    ]
    weights = [
        numpy_helper.from_array(np.full(2, value, np.float32), name)
        for name, value in (("far", 10), ("near", 1), ("unused", 5))
    ]
    yes = helper.make_tensor_value_info("yes", TensorProto.BOOL, [])
    outputs = [port("twice"), port("other"), port("chosen")]
    graph = helper.make_graph(nodes, "g", [port("x"), port("y"), yes], outputs, weights)
    opsets = [helper.make_opsetid("", 20)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def names(values: object) -> list[str]:
    return [each.name for each in values]  # type: ignore[attr-defined]


def test_what_an_output_does_not_need_goes() -> None:
    part = onnx.load_from_string(part_of(branching(), ["other"]))
    onnx.checker.check_model(part)
    assert (names(part.graph.input), names(part.graph.output)) == (["y"], ["other"])
    assert [node.op_type for node in part.graph.node] == ["Mul"]
    assert names(part.graph.initializer) == ["unused"]


def test_what_graphs_within_need_stays() -> None:
    part = onnx.load_from_string(part_of(branching(), ["chosen"]))
    onnx.checker.check_model(part)
    assert [node.op_type for node in part.graph.node] == ["Add", "If"]
    assert names(part.graph.input) == ["x", "yes"]
    assert names(part.graph.initializer) == ["far", "near"]


def test_all_outputs_need_all() -> None:
    assert part_of(branching(), ["twice", "other", "chosen"]) == branching()


def test_a_part_has_its_weights_in_the_files_beside_the_whole() -> None:
    graph = OnnxGraph(MADE)
    pixels = np.random.default_rng(0).normal(size=(1, 3, 64, 64)).astype(np.float32)
    (found,) = graph.run(["features"], {"pixels": pixels})
    assert found.shape == (1, 16, 88) and np.isfinite(found).all()


@pytest.mark.parametrize("content", [b"\x3a\x7f", b"\x0c", branching()[:-5]])
def test_a_damaged_file_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError):
        part_of(content, ["twice"])
