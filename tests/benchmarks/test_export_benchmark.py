"""Exports against torch, side by side in one process: time, size, memory, cold start.

python -m pytest tests/benchmarks/test_export_benchmark.py --benchmark-only -s

Prints one table per model. ViT-B/16 has random weights, which cost what trained ones do; their
labels are nearly tied, so how many of them eight bits keep says little of trained ones. Ratios are
of medians that alternate between the contestants, so that other load on the machine hits all alike.
Peak memory is that of a process that loads one contestant and runs one image.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from ovseg.config.schema import ImageEncoderConfig, ModelConfig
from ovseg.export.export import ExportOptions, export_loaded
from ovseg.export.quantise import quantise_image
from ovseg.export.source import ExportSource, source_of
from ovseg.export.verify import Verifier, compare
from ovseg.export.writers import OnnxProgram, TorchProgram, image_spec, write_onnx
from ovseg.models.ovsegmentor.build import build_ovsegmentor
from ovseg.models.starter.model import StarterModel
from tests.benchmarks.processes import Cost, cost
from tests.benchmarks.sizes import full
from tests.conftest import ROOT
from tests.export.models import TINY_TEXT, tiny_predictor

ROUNDS = full(5, 1)
PHOTO = ROOT / "examples" / "chelsea.png"


def starter() -> ExportSource:
    return source_of(StarterModel())


def vit_b16() -> ExportSource:
    """OVSegmentor's image encoder at its full size, random weights."""
    torch.manual_seed(0)
    predictor = tiny_predictor()
    config = ModelConfig(image=ImageEncoderConfig(backbone=""), text=TINY_TEXT)
    predictor.model = build_ovsegmentor(config).eval()
    for parameter in predictor.model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    return replace(source_of(predictor), text=None)


def tiny() -> ExportSource:
    """A model that says nothing about speed."""
    return replace(source_of(tiny_predictor()), text=None)


def alternate(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median seconds of each call, taken in turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(ROUNDS):
        for name, call in calls.items():
            start = perf_counter()
            call()
            times[name].append(perf_counter() - start)
    return {name: median(values) for name, values in times.items()}


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("make", full([starter, vit_b16], [tiny]))
def test_speed_and_size(
    benchmark: BenchmarkFixture, tmp_path: Path, make: Callable[[], ExportSource]
) -> None:
    source = make()
    plain, small = tmp_path / "image.onnx", tmp_path / "int8.onnx"
    write_onnx(image_spec(source), plain)
    verifier = Verifier(source, (), "onnx-int8")
    how = quantise_image(plain, small, verifier.references, verifier.least_agreement)
    contestants = {
        "torch eager": TorchProgram(source.image),
        "ONNX Runtime fp32": OnnxProgram(plain),
        "ONNX Runtime int8": OnnxProgram(small),
    }
    print(f"\n{make.__name__}: {torch.get_num_threads()} threads, int8 {how}")
    count = sum(parameter.numel() for parameter in source.image.parameters())
    sizes = [
        f"{name} {path.stat().st_size / 1e6:.1f} MB"
        for name, path in (("fp32", plain), ("int8", small))
    ]
    print(f"{count / 1e6:.1f} million weights; files: {', '.join(sizes)}")
    eight_bits = contestants["ONNX Runtime int8"]
    kept = [compare(one.found, eight_bits(one.inputs)).same_labels for one in verifier.references]
    print(f"int8 keeps at least {min(kept):.2%} of the labels")
    for side in full((224, 448), (224,)):
        inputs = noise(side, source.embedding_width)
        calls = {
            name: (lambda program=program, inputs=inputs: program(inputs))
            for name, program in contestants.items()
        }
        found = alternate(calls)
        eager, single, eight = found.values()
        print(
            f"{side}: "
            + ", ".join(f"{name} {1000 * t:.0f} ms" for name, t in found.items())
            + f"; fp32 {eager / single:.2f}x torch, int8 {single / eight:.2f}x fp32, "
            f"{eager / eight:.2f}x torch"
        )
    for name, program in peaks(make, plain, small).items():
        print(f"peak memory at 448, {name}: {cost(['-c', program]).peak:.0f} MB")
    benchmark.pedantic(calls["ONNX Runtime int8"], rounds=3)


def noise(side: int, width: int) -> dict[str, np.ndarray]:
    """Inputs of an image graph."""
    draw = np.random.default_rng(0).normal
    return {
        "pixels": draw(size=(1, 3, side, side)).astype(np.float32),
        "class_embeddings": draw(size=(20, width)).astype(np.float32),
        "threshold": np.array(0.5, np.float32),
    }


def peaks(make: Callable[[], ExportSource], plain: Path, small: Path) -> dict[str, str]:
    """Programs that load a contestant and run it once; without torch where that is the point."""
    where = "tests.benchmarks.test_export_benchmark"
    run = (
        "from pathlib import Path; import numpy as np;"
        "from ovseg.models.runtimes import open_graph;"
        "graph = open_graph(Path({path!r}));"
        "draw = np.random.default_rng(0).normal;"
        "inputs = dict(pixels=draw(size=(1, 3, 448, 448)).astype(np.float32),"
        "class_embeddings=draw(size=(20, {width})).astype(np.float32),"
        "threshold=np.array(0.5, np.float32));"
        "graph.run(('labels',), inputs)"
    )
    width = make().embedding_width
    return {
        "torch eager": f"from {where} import *; source = {make.__name__}();"
        "TorchProgram(source.image)(noise(448, source.embedding_width))",
        "ONNX Runtime fp32": run.format(path=str(plain), width=width),
        "ONNX Runtime int8": run.format(path=str(small), width=width),
    }


NO_TORCH = """
import sys
class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ImportError(name)
sys.meta_path.insert(0, Refusing())
from ovseg_cli.__main__ import run
sys.exit(run(sys.argv[1:]))
"""


@pytest.mark.timeout(1800)
def test_cold_start(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """From nothing to the first label map: a process's wall clock, processor time, peak memory."""
    folder = tmp_path / "export"
    exported = full(StarterModel, tiny_predictor)  # tracing the starter takes a minute
    export_loaded(exported(), folder, ExportOptions(images=(PHOTO,)))
    asking = ["segment", str(PHOTO), "--classes", "cat,dog", "--output", str(tmp_path / "out")]
    commands = {
        "built-in model, torch": ["-m", "ovseg_cli", *asking],
        "built-in model, no torch": ["-c", NO_TORCH, *asking],
        "its export, no torch": ["-c", NO_TORCH, *asking, "--model", str(folder)],
    }
    found: dict[str, list[Cost]] = {name: [] for name in commands}
    for _ in range(ROUNDS):
        for name, command in commands.items():
            found[name].append(cost(command))
    for name, costs in found.items():
        wall, processor = median(one.wall for one in costs), median(one.processor for one in costs)
        peak = max(one.peak for one in costs)
        print(
            f"\n{name}: {wall:.2f} s ({processor:.2f} s of processors), peak {peak:.0f} MB", end=""
        )
    benchmark.pedantic(cost, (commands["built-in model, no torch"],), rounds=2)
