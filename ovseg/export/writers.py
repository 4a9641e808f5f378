"""Graphs as files, ONNX's, OpenVINO's and torch's own, and read back as they will be used.

TorchScript archives hold pickles by their format, and torch.export's one that stands for example
inputs, empty here. torch reads them with restricted interpreters, yet what it loads is a program:
ovseg itself never runs such a file except to verify the one it has just written.

Letters: B image, K class, T text, L token, H W pixels.
"""

import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ovseg.errors import MissingDependencyError, ModelError
from ovseg.export.graphs import Found
from ovseg.export.source import ExportSource
from ovseg.models.manifest import Format
from ovseg.models.runtimes import open_graph
from ovseg.version import __version__

OPSET = 20  # the first with GELU as one operator
IMAGE_INPUTS = ("pixels", "class_embeddings", "threshold")
TEXT_INPUTS = ("ids", "mask")
TEXT_OUTPUTS = ("text_embedding",)

Inputs = Mapping[str, npt.NDArray[np.float32]]
Program = Callable[[Inputs], Found]

_MAX_PROTOBUF = 1_900_000_000  # protobuf itself ends at 2 GiB; beyond, weights lie beside the file


@dataclass(frozen=True)
class GraphSpec:
    """A module to write, and what exporters must be told of it.

    Attributes:
        module: the graph.
        example: inputs to trace it with, no two sizes alike.
        shapes: which sizes of the inputs may vary, as `torch.export` takes it.
        inputs, outputs: names in the file.
    """

    module: nn.Module = field(repr=False)
    example: tuple[Tensor, ...] = field(repr=False)
    shapes: tuple[Any, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def image_spec(source: ExportSource) -> GraphSpec:
    """The image graph of a model: pixels, class embeddings and threshold to `Found`."""
    step, free = max(source.model.preprocessing.multiple_of, source.cell), torch.export.Dim.DYNAMIC
    odd = 1 if source.stretches else 0  # an example of the general case
    shape = (2, 3, 6 * step - odd, 8 * step - odd)
    pixels = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    height, width = free, free
    if source.side_step > 1:
        height, width = (source.side_step * torch.export.Dim(name) for name in ("rows", "columns"))
    return GraphSpec(
        source.image,
        (pixels, torch.ones(7, source.embedding_width), torch.tensor(0.5)),
        ({0: free, 2: height, 3: width}, {0: free}, None),
        IMAGE_INPUTS,
        getattr(source.image, "outputs", Found._fields),
    )


def text_spec(source: ExportSource) -> GraphSpec:
    """The text graph of a model: ids and mask, of aligned models also shares, to embeddings."""
    assert source.text is not None
    graph = source.text.graph
    ids, free = torch.arange(27).reshape(3, 9) % 5 + 3, torch.export.Dim.DYNAMIC
    sizes = {0: free, 1: free}
    example, shapes = (ids, torch.ones_like(ids)), (sizes, sizes)
    if source.aligned is None:
        return GraphSpec(graph, example, shapes, TEXT_INPUTS, TEXT_OUTPUTS)
    shares = torch.full((2, 3), 1 / 3)
    return GraphSpec(
        graph, (*example, shares), (*shapes, sizes), (*TEXT_INPUTS, "shares"), TEXT_OUTPUTS
    )


def write_graph(spec: GraphSpec, format: Format, path: Path) -> None:
    """Write a graph in a format; in float32, so not in `onnx-int8`.

    Raises:
        MissingDependencyError: a package is missing that the format needs.
        ModelError: the model cannot be written as a graph for all sizes.
    """
    if format == "torchscript":
        write_torchscript(spec, path)
    elif format == "torch-export":
        write_program(spec, path)
    elif format == "openvino":
        write_openvino(spec, path)
    else:
        write_onnx(spec, path)


def write_onnx(spec: GraphSpec, path: Path) -> None:
    """Write a graph as an ONNX file; raises as `write_graph`."""
    require_exporter()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of its own deprecated parts
            program: Any = torch.onnx.export(
                spec.module,
                spec.example,
                dynamo=True,
                dynamic_shapes=spec.shapes,
                input_names=list(spec.inputs),
                output_names=list(spec.outputs),
                opset_version=OPSET,
                verbose=False,
            )
    except (torch.onnx.errors.OnnxExporterError, torch.onnx.OnnxExporterError) as error:
        raise ModelError(
            f"torch's exporter cannot write this model: {_first_line(error)}"
        ) from error
    proto = program.model_proto
    _forget_where_it_was_made(proto)
    save_checked(proto, path)


def write_openvino(spec: GraphSpec, path: Path) -> None:
    """Write a graph as OpenVINO's pair NAME.xml and NAME.bin; raises as `write_graph`."""
    openvino = require_openvino()
    with tempfile.TemporaryDirectory() as scratch:
        plain = Path(scratch) / "graph.onnx"
        write_onnx(spec, plain)
        openvino.save_model(openvino.convert_model(plain), path, compress_to_fp16=False)


def write_torchscript(spec: GraphSpec, path: Path) -> None:
    """Trace a graph to a TorchScript archive; raises as `write_graph`."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of tracing itself, and of branches that never vary
        try:
            traced = torch.jit.trace(_plain(spec), spec.example, check_trace=False)
        except RuntimeError as error:
            raise ModelError(f"this model cannot be traced: {_first_line(error)}") from error
        torch.jit.save(traced, str(path))


def write_program(spec: GraphSpec, path: Path) -> None:
    """Write a graph as torch.export's program; raises as `write_graph`."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            program = torch.export.export(_plain(spec), spec.example, dynamic_shapes=spec.shapes)
        except (torch._dynamo.exc.UserError, RuntimeError, ValueError) as error:
            raise ModelError(
                f"torch.export cannot write this model: {_first_line(error)}"
            ) from error
        program.example_inputs = None  # they alone would be pickled
        torch.export.save(program, path)


def save_checked(proto: Any, path: Path) -> None:
    """Write a graph with our metadata, and let ONNX's own checker read it back."""
    import onnx

    proto.producer_name, proto.producer_version = "ovseg", __version__
    proto.doc_string = ""
    onnx.helper.set_model_props(proto, {"ovseg": __version__, **exporter_versions()})
    beside = proto.ByteSize() > _MAX_PROTOBUF
    onnx.save(proto, path, save_as_external_data=beside, location=f"{path.name}.data")
    onnx.checker.check_model(str(path), full_check=True)


def exporter_versions() -> dict[str, str]:
    """Versions of the packages that decide what is in a file."""
    return {name: version(name) for name in ("torch", "onnx", "onnxscript")}


def require_exporter() -> None:
    """Say so if the packages that write ONNX are missing.

    Raises:
        MissingDependencyError: with the install command.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(error.name or "onnx", "export", "writing ONNX") from error


def require_openvino() -> Any:
    """The package, or a sentence that says how to get it."""
    try:
        import openvino
    except ImportError as error:
        raise MissingDependencyError("openvino", "openvino", "an OpenVINO export") from error
    return openvino


class OnnxProgram:
    """An ONNX or OpenVINO file of an image graph."""

    def __init__(self, path: Path) -> None:
        self._graph = open_graph(path)

    def __call__(self, inputs: Inputs) -> Found:
        return Found(*(torch.from_numpy(x) for x in self._graph.run(Found._fields, inputs)))


class TorchProgram:
    """A module, or a torch file that was loaded as one."""

    def __init__(self, module: Callable[..., Found] | nn.Module) -> None:
        self._module = module

    @torch.inference_mode()
    def __call__(self, inputs: Inputs) -> Found:
        found = self._module(*(torch.from_numpy(inputs[name]) for name in IMAGE_INPUTS))
        return Found(*found[: len(Found._fields)])


def open_program(path: Path) -> Program:
    """Read an image graph back, by its suffix. For files just written: torch's are programs."""
    if path.suffix == ".pt":
        return TorchProgram(torch.jit.load(path))
    if path.suffix == ".pt2":
        return TorchProgram(torch.export.load(path).module())
    return OnnxProgram(path)


class PlainOutputs(nn.Module):
    """An image graph that returns a plain tuple: torch's formats cannot name the fields."""

    def __init__(self, graph: nn.Module) -> None:
        super().__init__()
        self.inner = graph

    def forward(self, pixels: Tensor, classes: Tensor, threshold: Tensor) -> tuple[Tensor, ...]:
        """The fields of `Found`, in order."""
        return tuple(self.inner(pixels, classes, threshold))


def _plain(spec: GraphSpec) -> nn.Module:
    """The module, with a plain tuple for named outputs."""
    return PlainOutputs(spec.module) if spec.outputs != TEXT_OUTPUTS else spec.module


def _forget_where_it_was_made(proto: Any) -> None:
    """Drop the exporter's notes, which hold paths and source lines of this machine."""
    for holder in (*proto.graph.node, *proto.functions, *proto.graph.value_info, proto.graph):
        del holder.metadata_props[:]
        holder.doc_string = ""


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
