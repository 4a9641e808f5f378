"""Graphs in ONNX Runtime and OpenVINO: NumPy arrays in, NumPy arrays out."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt

from ovseg.errors import MissingDependencyError, ModelError, UsageError
from ovseg.models.onnx_part import part_of

Arrays = Mapping[str, npt.NDArray]

_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
_MOST_CUT = 64 << 20
"""Bytes of a graph of which a part is made in memory; larger ones hold large weights themselves."""


class Runtime(Protocol):
    """One graph, opened when it is first run."""

    def run(self, outputs: Sequence[str], inputs: Arrays) -> list[npt.NDArray]:
        """Compute the outputs asked for, from those of the inputs that the graph has.

        Nothing else is computed, but by ONNX Runtime where a file is large.

        Raises:
            ModelError: the file is damaged, or the inputs do not fit it.
            MissingDependencyError: the runtime is not installed.
        """
        ...


class OnnxGraph:
    """A graph in ONNX Runtime, which opens one part for each set of outputs asked for."""

    def __init__(self, path: Path, device: str = "cpu") -> None:
        self.path = path
        self.device = device
        self._sessions: dict[tuple[str, ...], Any] = {}

    def run(self, outputs: Sequence[str], inputs: Arrays) -> list[npt.NDArray]:
        wanted = tuple(outputs)
        if wanted not in self._sessions:
            self._sessions[wanted] = self._opened(wanted)
        session = self._sessions[wanted]
        asked = {each.name for each in session.get_inputs()}
        try:
            return session.run(list(outputs), {k: v for k, v in inputs.items() if k in asked})
        except Exception as error:
            raise ModelError(f"{self.path}: {_first_line(error)}") from error

    def _opened(self, outputs: tuple[str, ...]) -> Any:
        runtime, providers = onnxruntime(), _providers(self.device)
        options = runtime.SessionOptions()
        options.add_session_config_entry(_WEIGHTS_FOLDER, str(self.path.parent))
        try:
            return runtime.InferenceSession(self._part(outputs), options, providers=providers)
        except Exception as error:  # its errors share no public base
            raise ModelError(
                f"{self.path}: ONNX Runtime cannot read it: {_first_line(error)}"
            ) from error

    def _part(self, outputs: tuple[str, ...]) -> Path | bytes:
        """What ONNX Runtime opens: it would compute all of the file, whatever is asked for."""
        try:
            if self.path.stat().st_size <= _MOST_CUT:
                return part_of(self.path.read_bytes(), outputs)
        except (OSError, ValueError):
            pass  # which ONNX Runtime will say in words of its own
        return self.path


class OpenVinoGraph:
    """A graph in OpenVINO, which compiles one part for each set of outputs asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._compiled: dict[tuple[str, ...], Any] = {}

    def run(self, outputs: Sequence[str], inputs: Arrays) -> list[npt.NDArray]:
        wanted = tuple(outputs)
        try:
            if wanted not in self._compiled:
                self._compiled[wanted] = self._compile(wanted)
            compiled = self._compiled[wanted]
            asked = {name for port in compiled.inputs for name in port.names}
            found = compiled({name: value for name, value in inputs.items() if name in asked})
        except RuntimeError as error:
            raise ModelError(f"{self.path}: OpenVINO: {_first_line(error)}") from error
        return [found[compiled.output(name)] for name in wanted]

    def _compile(self, outputs: tuple[str, ...]) -> Any:
        openvino = _openvino()
        core = openvino.Core()
        whole = core.read_model(self.path)
        sources = [whole.output(name).node.input_value(0) for name in outputs]
        needed = _parameters_behind([source.get_node() for source in sources])
        parameters = [p for p in whole.get_parameters() if p.get_friendly_name() in needed]
        part = openvino.Model(sources, parameters, "part")
        # Half precision, which it may choose on its own, is not what was verified.
        options = {"INFERENCE_PRECISION_HINT": "f32"}
        # Compiling leaves its thread with a stack for signals that is unmapped later, so that the
        # next signal, an interrupt from the keyboard say, would end the process: not this thread.
        with ThreadPoolExecutor(max_workers=1) as thread:
            return thread.submit(core.compile_model, part, "CPU", options).result()


def _parameters_behind(nodes: list[Any]) -> set[str]:
    """Names of the inputs of a graph that some of its nodes depend on."""
    seen: set[str] = set()
    found: set[str] = set()
    while nodes:
        node = nodes.pop()
        name = node.get_friendly_name()
        if name in seen:
            continue
        seen.add(name)
        if node.get_type_name() == "Parameter":
            found.add(name)
        nodes.extend(port.get_node() for port in node.input_values())
    return found


def open_graph(path: Path, device: str = "auto") -> Runtime:
    """A graph by its file's suffix: `.onnx` or `.xml`.

    Raises:
        UsageError: the device is not one its runtime has here.
    """
    if path.suffix == ".xml":
        if device not in ("auto", "cpu"):
            raise UsageError(f"device {device}: an OpenVINO export runs on the device cpu")
        return OpenVinoGraph(path)
    return OnnxGraph(path, device)


def onnxruntime() -> Any:
    """The package, or a sentence that says how to get it."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError("onnxruntime", "onnx", "an ONNX export") from error
    return onnxruntime


def _openvino() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise MissingDependencyError("openvino", "openvino", "an OpenVINO export") from error
    return openvino


def _providers(device: str) -> list[str]:
    """Execution providers for a device named as torch names it."""
    family = device.split(":")[0]
    there = onnxruntime().get_available_providers()
    if family == "cuda" and "CUDAExecutionProvider" not in there:
        raise UsageError(
            f"device {device} is not available to ONNX Runtime here: install onnxruntime-gpu, "
            "or try the device cpu"
        )
    if family not in ("auto", "cpu", "cuda"):
        raise UsageError(f"device {device}: an ONNX export runs on auto, cpu or cuda")
    wanted = ("CUDAExecutionProvider",) if family in ("auto", "cuda") else ()
    return [name for name in (*wanted, "CPUExecutionProvider") if name in there]


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
