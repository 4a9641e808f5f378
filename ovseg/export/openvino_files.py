"""ONNX graphs as OpenVINO's pair of files: NAME.xml and NAME.bin."""

from pathlib import Path
from typing import Any

from ovseg.errors import MissingDependencyError


def write_openvino(onnx_file: Path, path: Path) -> None:
    """Convert a graph, weights in float32.

    Raises:
        MissingDependencyError: OpenVINO is not installed.
    """
    openvino = require_openvino()
    openvino.save_model(openvino.convert_model(onnx_file), path, compress_to_fp16=False)


def require_openvino() -> Any:
    """The package, or a sentence that says how to get it."""
    try:
        import openvino
    except ImportError as error:
        raise MissingDependencyError("openvino", "openvino", "an OpenVINO export") from error
    return openvino
