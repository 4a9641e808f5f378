"""Graphs with weights, and where it pays activations, in eight bits.

Several ways are tried on an image graph and the measurements decide. Dynamic quantisation of matrix
products (per-channel, signed weights) suits transformers. Convolutions gain nothing from it, so
networks of convolutions are also quantised statically, with ranges calibrated on images. Where
neither keeps the labels, weights alone are: a small file at float32's speed.
"""

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ovseg.errors import MissingDependencyError
from ovseg.export.verify import Reference, compare, timed
from ovseg.export.writers import OnnxProgram, save_checked

_log = logging.getLogger(__name__)

PRODUCTS = ("MatMul", "Gemm")
CONVOLUTIONS = ("Conv",)
MIN_CONVOLUTIONS = 8  # a transformer has one, which cuts the patches

DYNAMIC = "dynamic, products, per channel"
WEIGHTS_ALONE = "weights alone, in blocks"
BLOCK = 32  # weights that share a scale and a zero


@dataclass(frozen=True)
class Way:
    """A way to quantise: its name, and what writes the quantised graph."""

    name: str
    write: Callable[[Path, Path], None]


@dataclass(frozen=True)
class Candidate:
    """A quantised graph, and how it compares with the model."""

    name: str
    path: Path
    agreement: float
    seconds: float


def quantise_text(source: Path, target: Path, weights_alone: bool = False) -> str:
    """Quantise a text graph: its products dynamically, or where that costs labels their weights.

    Returns the name of the way.
    """
    name, write = (WEIGHTS_ALONE, _blocks) if weights_alone else (DYNAMIC, _dynamic)
    with tempfile.TemporaryDirectory() as folder:
        quantised = Path(folder) / "quantised.onnx"
        write(_prepared(source, Path(folder)), quantised)
        _keep(quantised, target)
    return name


def quantise_image(
    source: Path, target: Path, references: Sequence[Reference], least_agreement: float
) -> str:
    """Quantise an image graph in the fastest of the ways that keep the labels; returns its name.

    Args:
        source, target: the graph in float32, and the file to write.
        references: inputs to calibrate with and to compare on, with the outputs wanted.
        least_agreement: share of pixels that must keep their label. Where no way keeps so many,
            the one that keeps most is written: verification refuses it then and says why.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepared = _prepared(source, folder)
        tried = [_try(way, prepared, references) for way in _fast_ways(prepared, references)]
        if all(one.agreement < least_agreement for one in tried):
            tried.append(_try(Way(WEIGHTS_ALONE, _blocks), prepared, references))
        good = [one for one in tried if one.agreement >= least_agreement]
        by_agreement = sorted(tried, key=lambda one: -one.agreement)
        best = min(good, key=lambda one: one.seconds) if good else by_agreement[0]
        _keep(best.path, target)
        return best.name


def _fast_ways(prepared: Path, references: Sequence[Reference]) -> list[Way]:
    import onnx

    kinds = [node.op_type for node in onnx.load(prepared, load_external_data=False).graph.node]
    ways = [Way(DYNAMIC, _dynamic)]
    if kinds.count(CONVOLUTIONS[0]) >= MIN_CONVOLUTIONS:
        static = partial(_static, references=references)
        ways.append(Way("static, convolutions and products, per channel", static))
    return ways


def _try(way: Way, prepared: Path, references: Sequence[Reference]) -> Candidate:
    path = prepared.with_name(f"{way.name.split(',')[0]}.onnx")
    way.write(prepared, path)
    program = OnnxProgram(path)
    agreement = min(
        compare(reference.found, program(reference.inputs)).same_labels for reference in references
    )
    seconds = timed(lambda: program(references[-1].inputs))
    _log.info("%s: labels agree on %.2f %%, %.1f ms", way.name, 100 * agreement, 1000 * seconds)
    return Candidate(way.name, path, agreement, seconds)


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


def _static(source: Path, target: Path, references: Sequence[Reference]) -> None:
    quantisation = _quantizer()
    with _quiet():
        quantisation.quantize_static(
            source,
            target,
            _Reader(references),
            quant_format=quantisation.QuantFormat.QDQ,
            op_types_to_quantize=[*CONVOLUTIONS, *PRODUCTS],
            per_channel=True,
            activation_type=quantisation.QuantType.QUInt8,
            weight_type=quantisation.QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )


def _blocks(source: Path, target: Path) -> None:
    """Store weights of products in eight bits, with a scale per block, and compute in float32."""
    _quantizer()
    import onnx
    from onnxruntime.quantization import matmul_nbits_quantizer as blockwise

    settings = blockwise.DefaultWeightOnlyQuantConfig(BLOCK, is_symmetric=False, bits=8)
    with _quiet():
        quantiser = blockwise.MatMulNBitsQuantizer(onnx.load(source), algo_config=settings)
        quantiser.process()
    onnx.save(quantiser.model.model, target)


class _Reader:
    """Feeds references to the calibration, one after the other."""

    def __init__(self, references: Sequence[Reference]) -> None:
        self._inputs = iter([reference.inputs for reference in references])

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
