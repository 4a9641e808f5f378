"""Graphs in torch's own formats, for applications that load them with torch.

TorchScript archives hold pickles by their format, and torch.export's one that stands for example
inputs, empty here. torch reads them with restricted interpreters, yet what it loads is a program:
ovseg itself never runs such a file except to verify the one it has just written.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ovseg.errors import ModelError
from ovseg.export.onnx_files import image_example, image_shapes, text_example, text_shapes
from ovseg.export.source import Source


class PlainOutputs(nn.Module):
    """An image graph that returns a plain tuple: torch's formats cannot name the fields."""

    def __init__(self, graph: nn.Module) -> None:
        super().__init__()
        self.inner = graph

    def forward(self, pixels: Tensor, classes: Tensor, threshold: Tensor) -> tuple[Tensor, ...]:
        """The fields of `Found`, in order."""
        return tuple(self.inner(pixels, classes, threshold))


def write_image_torchscript(source: Source, path: Path) -> None:
    """Trace the image graph to a TorchScript archive."""
    _trace(PlainOutputs(source.image), image_example(source), path)


def write_text_torchscript(graph: nn.Module, path: Path) -> None:
    """Trace the text graph to a TorchScript archive."""
    _trace(graph, text_example(), path)


def write_image_program(source: Source, path: Path) -> None:
    """Write the image graph as torch.export's program, sizes dynamic."""
    _export(PlainOutputs(source.image), image_example(source), image_shapes(source), path)


def write_text_program(graph: nn.Module, path: Path) -> None:
    """Write the text graph as torch.export's program, sizes dynamic."""
    _export(graph, text_example(), text_shapes(), path)


def _trace(graph: nn.Module, example: Sequence[Tensor], path: Path) -> None:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of tracing itself, and of branches that never vary
        try:
            traced = torch.jit.trace(graph, tuple(example), check_trace=False)
        except RuntimeError as error:
            raise ModelError(f"this model cannot be traced: {_first_line(error)}") from error
        torch.jit.save(traced, str(path))


def _export(
    graph: nn.Module, example: tuple[Tensor, ...], shapes: tuple[Any, ...], path: Path
) -> None:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            program = torch.export.export(graph, example, dynamic_shapes=shapes)
        except (torch._dynamo.exc.UserError, RuntimeError, ValueError) as error:
            raise ModelError(
                f"torch.export cannot write this model: {_first_line(error)}"
            ) from error
        program.example_inputs = None  # they alone would be pickled
        torch.export.save(program, path)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
