"""Exports against torch, side by side in one process: time, size, memory, cold start.

python -m pytest tests/benchmarks/test_export_benchmark.py --benchmark-only -s

Prints one table per model. ViT-B/16 has random weights, which cost what trained ones do. Ratios are
of medians that alternate between the contestants, so that other load on the machine hits all alike.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import NamedTuple

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from ovseg.config.model import ImageEncoderConfig, ModelConfig, TextEncoderConfig
from ovseg.export.exporting import ExportOptions, export_loaded
from ovseg.export.gate import Gate
from ovseg.export.onnx_files import write_image_onnx
from ovseg.export.programs import OnnxProgram, TorchProgram
from ovseg.export.quantisation import quantise_image
from ovseg.export.source import Source, source_of
from ovseg.model.build import build_ovsegmentor
from ovseg.model.starter.model import StarterModel
from tests.conftest import ROOT
from tests.export.models import tiny_predictor

ROUNDS = 5


def starter() -> Source:
    return source_of(StarterModel())


def vit_b16() -> Source:
    """OVSegmentor's image encoder at its full size, random weights."""
    torch.manual_seed(0)
    predictor = tiny_predictor()
    text = TextEncoderConfig(
        encoder="",
        architecture="bert",
        width=48,
        depth=2,
        heads=4,
        mlp_width=96,
        vocab_size=64,
        max_positions=80,
    )
    config = ModelConfig(image=ImageEncoderConfig(backbone=""), text=text)
    predictor.model = build_ovsegmentor(config).eval()
    return replace(source_of(predictor), text=None)


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


@pytest.mark.parametrize("make", [starter, vit_b16])
def test_speed_and_size(
    benchmark: BenchmarkFixture, tmp_path: Path, make: Callable[[], Source]
) -> None:
    source = make()
    plain, small = tmp_path / "image.onnx", tmp_path / "int8.onnx"
    write_image_onnx(source, plain)
    gate = Gate(source, (), "onnx-int8")
    how = quantise_image(plain, small, gate.samples, gate.least_agreement)
    contestants = {
        "torch eager": TorchProgram(source.image),
        "ONNX Runtime fp32": OnnxProgram(plain),
        "ONNX Runtime int8": OnnxProgram(small),
    }
    print(f"\n{make.__name__}: {torch.get_num_threads()} threads, int8 {how}")
    print(
        f"files: fp32 {plain.stat().st_size / 1e6:.1f} MB, int8 {small.stat().st_size / 1e6:.1f} MB"
    )
    for side in (224, 448):
        inputs = {
            "pixels": np.random.default_rng(0).normal(size=(1, 3, side, side)).astype(np.float32),
            "class_embeddings": gate.samples[0].inputs["class_embeddings"],
            "threshold": np.array(0.5, np.float32),
        }
        calls = {
            name: (lambda program=program, inputs=inputs: program(inputs))
            for name, program in contestants.items()
        }
        found = alternate(calls)
        eager, full, eight = found.values()
        print(
            f"{side}: "
            + ", ".join(f"{name} {1000 * t:.0f} ms" for name, t in found.items())
            + f"; fp32 {eager / full:.2f}x torch, int8 {full / eight:.2f}x fp32, "
            f"{eager / eight:.2f}x torch"
        )
    benchmark.pedantic(calls["ONNX Runtime int8"], rounds=3)


def test_cold_start(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """From nothing to the first label map: a process's wall clock, processor time, peak memory."""
    folder = tmp_path / "export"
    export_loaded(StarterModel(), folder, ExportOptions())
    photo = str(ROOT / "examples" / "chelsea.png")
    commands = {
        name: ["-m", "ovseg_cli", "segment", photo, "--model", model, "--classes", "cat,dog"]
        for name, model in (("torch", "starter"), ("ONNX Runtime", str(folder)))
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
    benchmark.pedantic(cost, (commands["ONNX Runtime"],), rounds=2)


class Cost(NamedTuple):
    """Seconds and megabytes of a process."""

    wall: float
    processor: float
    peak: float


def cost(command: list[str]) -> Cost:
    """Run Python with these arguments."""
    start = perf_counter()
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    wall = perf_counter() - start
    assert os.waitstatus_to_exitcode(status) == 0
    process.returncode = 0
    return Cost(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
