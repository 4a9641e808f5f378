"""Graphs with weights, and where it pays activations, in eight bits.

Two ways are tried on an image graph and the measurements decide. Dynamic quantisation of matrix
products (per-channel, signed weights) suits transformers. Convolutions gain nothing from it, so
networks of convolutions are quantised statically, with ranges calibrated on images.
"""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ovseg.errors import MissingDependencyError
from ovseg.export.comparison import Sample, compare, timed
from ovseg.export.onnx_files import save_checked
from ovseg.export.programs import OnnxProgram

_log = logging.getLogger(__name__)

PRODUCTS = ("MatMul", "Gemm")
CONVOLUTIONS = ("Conv",)
MIN_CONVOLUTIONS = 8  # a transformer has one, which cuts the patches


@dataclass(frozen=True)
class Candidate:
    """A way to quantise and what came of it."""

    name: str
    path: Path
    agreement: float
    seconds: float


def quantise_text(source: Path, target: Path) -> None:
    """Quantise a text graph: its products dynamically."""
    with tempfile.TemporaryDirectory() as folder:
        _dynamic(_prepared(source, Path(folder)), Path(folder) / "quantised.onnx")
        _keep(Path(folder) / "quantised.onnx", target)


def quantise_image(
    source: Path, target: Path, samples: Sequence[Sample], least_agreement: float
) -> str:
    """Quantise an image graph in the faster of the ways that keep the labels; returns its name.

    Args:
        source, target: the graph in float32, and the file to write.
        samples: inputs to calibrate with and to compare on, with the outputs wanted.
        least_agreement: share of pixels that must keep their label. Where no way keeps so many,
            the one that keeps most is written: the gate refuses it then and says why.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepared = _prepared(source, folder)
        tried = [_measured(way, path, samples) for way, path in _ways(prepared, folder, samples)]
        good = [one for one in tried if one.agreement >= least_agreement]
        best = min(good, key=lambda one: one.seconds) if good else max(tried, key=_agreement)
        for one in tried:
            _log.info(
                "%s: labels agree on %.2f %%, %.1f ms",
                *(one.name, 100 * one.agreement, 1000 * one.seconds),
            )
        _keep(best.path, target)
        return best.name


def _ways(prepared: Path, folder: Path, samples: Sequence[Sample]) -> list[tuple[str, Path]]:
    import onnx

    kinds = [node.op_type for node in onnx.load(prepared, load_external_data=False).graph.node]
    ways = [("dynamic, products, per channel", folder / "dynamic.onnx")]
    _dynamic(prepared, ways[0][1])
    if kinds.count(CONVOLUTIONS[0]) >= MIN_CONVOLUTIONS:
        ways.append(("static, convolutions and products, per channel", folder / "static.onnx"))
        _static(prepared, ways[1][1], samples)
    return ways


def _measured(name: str, path: Path, samples: Sequence[Sample]) -> Candidate:
    program = OnnxProgram(path)
    agreement = min(compare(sample.found, program(sample.inputs)).agreement for sample in samples)
    return Candidate(name, path, agreement, timed(lambda: program(samples[-1].inputs)))


def _agreement(candidate: Candidate) -> float:
    return candidate.agreement


def _prepared(source: Path, folder: Path) -> Path:
    """The graph with all shapes written into it, which quantisation goes by."""
    _quantizer()
    from onnxruntime.quantization.shape_inference import quant_pre_process

    target = folder / "prepared.onnx"
    quant_pre_process(source, target, skip_symbolic_shape=True)
    return target


def _dynamic(source: Path, target: Path) -> None:
    quantisation = _quantizer()
    with _quiet():
        quantisation.quantize_dynamic(
            source,
            target,
            op_types_to_quantize=list(PRODUCTS),
            per_channel=True,
            weight_type=quantisation.QuantType.QInt8,
        )


def _static(source: Path, target: Path, samples: Sequence[Sample]) -> None:
    quantisation = _quantizer()
    with _quiet():
        quantisation.quantize_static(
            source,
            target,
            _Reader(samples),
            quant_format=quantisation.QuantFormat.QDQ,
            op_types_to_quantize=[*CONVOLUTIONS, *PRODUCTS],
            per_channel=True,
            activation_type=quantisation.QuantType.QUInt8,
            weight_type=quantisation.QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )


class _Reader:
    """Feeds samples to the calibration, one after the other."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._inputs = iter([sample.inputs for sample in samples])

    def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
        inputs = next(self._inputs, None)
        return None if inputs is None else dict(inputs)

    def __iter__(self) -> "_Reader":
        return self

    def __next__(self) -> dict[str, npt.NDArray[np.float32]]:
        inputs = self.get_next()
        if inputs is None:
            raise StopIteration
        return inputs


def _keep(path: Path, target: Path) -> None:
    import onnx

    save_checked(onnx.load(path), target)


def _quantizer() -> Any:
    try:
        import onnxruntime.quantization as quantisation
    except ImportError as error:
        raise MissingDependencyError("onnxruntime", "export", "int8") from error
    return quantisation


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantiser's advice, which goes to the root logger, from the screen."""
    before = logging.root.level
    logging.root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.root.setLevel(before)
