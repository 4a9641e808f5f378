"""Written graphs, read back as they will be used: arrays in, named arrays out."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ovseg.export.graphs import Found
from ovseg.export.onnx_files import IMAGE_INPUTS
from ovseg.models.runtimes import open_graph

Inputs = Mapping[str, npt.NDArray[np.float32]]
Program = Callable[[Inputs], Found]


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
        return Found(*self._module(*(torch.from_numpy(inputs[name]) for name in IMAGE_INPUTS)))


def open_program(path: Path) -> Program:
    """Read an image graph back, by its suffix. For files just written: torch's are programs."""
    if path.suffix == ".pt":
        return TorchProgram(torch.jit.load(path))
    if path.suffix == ".pt2":
        return TorchProgram(torch.export.load(path).module())
    return OnnxProgram(path)
