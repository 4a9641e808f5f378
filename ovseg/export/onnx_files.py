"""Graphs as ONNX files.

Letters: B image, K class, T text, L token, H W pixels.
"""

import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ovseg.errors import MissingDependencyError, ModelError
from ovseg.export.graphs import Found
from ovseg.export.source import Source
from ovseg.version import __version__

OPSET = 20  # the first with GELU as one operator
IMAGE_INPUTS = ("pixels", "class_embeddings", "threshold")
TEXT_INPUTS = ("ids", "mask")
TEXT_OUTPUTS = ("text_embedding",)

_MAX_PROTOBUF = 1_900_000_000  # protobuf itself ends at 2 GiB; beyond, weights lie beside the file


def image_example(source: Source) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs of an image graph with no two sizes alike: pixels, class embeddings, threshold."""
    step = source.model.preprocessing.multiple_of
    pixels = torch.randn(2, 3, 6 * step, 8 * step, generator=torch.Generator().manual_seed(0))
    return pixels, torch.ones(7, source.embedding_width), torch.tensor(0.5)


def text_example() -> tuple[Tensor, Tensor]:
    """Inputs of a text graph: ids and mask."""
    ids = torch.arange(27).reshape(3, 9) % 5 + 3
    return ids, torch.ones_like(ids)


def image_shapes(source: Source) -> tuple[Any, ...]:
    """Which sizes of an image graph may vary, as the exporters are told."""
    free = torch.export.Dim.DYNAMIC
    height, width = free, free
    if source.side_step > 1:
        height, width = (source.side_step * torch.export.Dim(name) for name in ("rows", "columns"))
    return {0: free, 2: height, 3: width}, {0: free}, None


def text_shapes() -> tuple[Any, ...]:
    """The same for a text graph."""
    free = torch.export.Dim.DYNAMIC
    return {0: free, 1: free}, {0: free, 1: free}


def write_image_onnx(source: Source, path: Path) -> None:
    """Write the image graph.

    Raises:
        MissingDependencyError: the exporter is not installed.
        ModelError: the model cannot be written as a graph for all sizes.
    """
    example = image_example(source)
    _write(source.image, example, image_shapes(source), IMAGE_INPUTS, Found._fields, path)


def write_text_onnx(graph: nn.Module, path: Path) -> None:
    """Write the text graph; raises as `write_image_onnx`."""
    _write(graph, text_example(), text_shapes(), TEXT_INPUTS, TEXT_OUTPUTS, path)


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


def _write(
    graph: nn.Module,
    example: tuple[Tensor, ...],
    shapes: tuple[Any, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
    path: Path,
) -> None:
    require_exporter()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of its own deprecated parts
            program: Any = torch.onnx.export(
                graph,
                example,
                dynamo=True,
                dynamic_shapes=shapes,
                input_names=list(inputs),
                output_names=list(outputs),
                opset_version=OPSET,
                verbose=False,
            )
    except (torch.onnx.errors.OnnxExporterError, torch.onnx.OnnxExporterError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"torch's exporter cannot write this model: {reason}") from error
    proto = program.model_proto
    _forget_where_it_was_made(proto)
    save_checked(proto, path)


def _forget_where_it_was_made(proto: Any) -> None:
    """Drop the exporter's notes, which hold paths and source lines of this machine."""
    for holder in (*proto.graph.node, *proto.functions, *proto.graph.value_info, proto.graph):
        del holder.metadata_props[:]
        holder.doc_string = ""
