"""ONNX files that reach for more than their own numbers."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper

from ovseg.errors import ModelError
from ovseg.models import onnx_file
from ovseg.models.onnx_file import check_onnx
from tests.conftest import ROOT

VALUES = numpy_helper.from_array(np.ones((4, 4), np.float32), "weights")


def saved(folder: Path, nodes: list, weights: list, domains: tuple[str, ...] = ("",)) -> Path:
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 4]) for name in "xy"]
    graph = helper.make_graph(nodes, "graph", ports[:1], ports[1:], weights)
    opsets = [helper.make_opsetid(domain, 20 if not domain else 1) for domain in domains]
    path = folder / "graph.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=opsets).SerializeToString())
    return path


def outside(location: str) -> TensorProto:
    tensor = TensorProto(name="weights", dims=(4, 4), data_type=TensorProto.FLOAT)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="offset", value="0")
    tensor.external_data.add(key="location", value=location)
    return tensor


def add(domain: str = "", operator: str = "Add") -> list:
    return [helper.make_node(operator, ["x", "weights"], ["y"], domain=domain)]


def test_exports_pass() -> None:
    made = ROOT / "tests/compatibility/made"
    found = [ROOT / "ovseg/models/starter/graph.onnx", *sorted(made.rglob("*.onnx"))]
    assert len(found) > 2
    for path in found:
        check_onnx(path)


def test_weights_beside_the_file_pass(tmp_path: Path) -> None:
    check_onnx(saved(tmp_path, add(), [VALUES]))
    check_onnx(saved(tmp_path, add(), [outside("graph.onnx.data")]))


@pytest.mark.parametrize("location", ["/etc/passwd", "../secret", "a/../../b", "C:\\x", "", "~/x"])
def test_weights_elsewhere_are_refused(location: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="which is not in its folder"):
        check_onnx(saved(tmp_path, add(), [outside(location)]))
    constant = helper.make_node("Constant", [], ["weights"], value=outside(location))
    with pytest.raises(ModelError, match="which is not in its folder"):
        check_onnx(saved(tmp_path, [constant, *add()], []))


@pytest.mark.parametrize(
    ("domain", "operator"),
    [("ai.onnx.contrib", "PyOp"), ("mine", "Add"), ("com.microsoft", "EPContext")],
)
def test_operators_of_others_are_refused(domain: str, operator: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"refused: it uses the operator {domain}.{operator}"):
        check_onnx(saved(tmp_path, add(domain, operator), [VALUES], ("", domain)))
    inner = helper.make_graph(
        add(domain, operator), "inner", [], [helper.make_tensor_value_info("y", 1, [4, 4])]
    )
    branch = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
    with pytest.raises(ModelError, match="refused"):
        check_onnx(saved(tmp_path, [branch], [VALUES]))


def test_what_is_no_onnx_file_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "graph.onnx"
    for content in (b"", b"PK\x03\x04" * 20, b"\x3a\xff\xff\xff\xff\x0f", b"\x00" * 9, b"\x0b"):
        path.write_bytes(content)
        with pytest.raises(ModelError, match="no ONNX file, or damaged"):
            check_onnx(path)
    monkeypatch.setattr(onnx_file, "_MOST_FIELDS", 10)
    with pytest.raises(ModelError, match="more than 10 fields"):
        check_onnx(saved(tmp_path, add() * 9, [VALUES]))
