"""OVSegmentor ViT-B/16 against a bare ViT-B/16 of timm and against the reference's two passes.

    python -m pytest tests/benchmarks/test_model_benchmark.py --benchmark-only -s

Weights are random (speed does not depend on them), inputs seeded. Each comparison alternates its
sides within one run and prints the ratio of their medians, so that other load hits both alike. The
GPU part skips where torch sees none; on a GPU box, `-k gpu` runs it alone.
"""

import statistics
import time
from collections.abc import Callable

import pytest
import timm
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

from ovseg.config.schema import ImageEncoderConfig
from ovseg.inference.groups import regions
from ovseg.inference.labels import strongest
from ovseg.inference.maps import RegionMaps
from ovseg.inference.views import boxes_of
from ovseg.models.interface import GroupedImage
from ovseg.models.ovsegmentor.build import build_image_encoder
from ovseg.models.ovsegmentor.image_encoder import ImageEncoder
from ovseg.models.ovsegmentor.network import Projector
from ovseg.models.scoring import ovsegmentor_scores
from tests.benchmarks.sizes import full
from tests.inference.one_image import label_map

ROUNDS = full(7, 1)
DEPTHS = full((6, 6), (1, 1))
GPU_SECONDS = 3.0


def ours() -> ImageEncoder:
    torch.manual_seed(0)
    return build_image_encoder(ImageEncoderConfig(backbone="", depths=DEPTHS)).eval()


def bare(size: int) -> nn.Module:
    torch.manual_seed(0)
    depth = sum(DEPTHS)
    return timm.create_model(
        "vit_base_patch16_224", num_classes=0, img_size=size, depth=depth
    ).eval()


def medians(sides: dict[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, float]:
    """Median seconds of each side, measured in turn."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for run in sides.values():
        run()
    for _ in range(rounds):
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in times.items()}


def report(benchmark: BenchmarkFixture, found: dict[str, float], target: str) -> None:
    """Print milliseconds and ratios to the first side, and keep them with the benchmark."""
    first = next(iter(found))
    lines = [f"{name} {seconds * 1e3:.0f} ms" for name, seconds in found.items()]
    ratios = {name: found[first] / s for name, s in found.items() if name != first}
    lines += [f"{first} / {name} = {ratio:.2f}" for name, ratio in ratios.items()]
    benchmark.extra_info.update(ratios)
    print(f"\n{', '.join(lines)} (target {target}; {torch.get_num_threads()} threads)")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@torch.no_grad()
def test_one_image_at_448_against_bare_vit(benchmark: BenchmarkFixture, dtype: torch.dtype) -> None:
    encoder, vit = ours().to(dtype), bare(448).to(dtype)
    pixels = torch.randn(1, 3, 448, 448).to(dtype)
    found = medians({"ovsegmentor": lambda: encoder(pixels), "vit": lambda: vit(pixels)})
    report(benchmark, found, "<= 0.70")
    benchmark.pedantic(encoder, (pixels,), rounds=3)


@torch.no_grad()
def test_one_image_at_448_against_two_passes(benchmark: BenchmarkFixture) -> None:
    """The reference asks its encoder once for the groups and once for the assignment."""
    encoder, head = ours(), Projector(768, 4096, 256).eval()
    pixels = torch.randn(1, 3, 448, 448)

    def once() -> tuple[Tensor, ...]:
        found = encoder(pixels)
        return head(found.mean), head(found.groups), found.binding.soft

    def twice() -> tuple[Tensor, ...]:
        first = encoder(pixels)
        return head(first.mean), head(first.groups), encoder(pixels).binding.soft

    report(benchmark, medians({"two passes": twice, "one pass": once}), ">= 2")
    benchmark.pedantic(once, rounds=3)


@torch.no_grad()
def test_windows_of_an_image_against_two_passes_each(benchmark: BenchmarkFixture) -> None:
    """A 4:3 photo: both windows as one batch, once; the reference goes window by window, twice."""
    encoder = ours()
    windows = torch.randn(2, 3, 448, 448)

    def reference() -> None:
        for window in windows:
            encoder(window[None])
            encoder(window[None])

    sides = {"window by window, twice": reference, "one batch": lambda: encoder(windows)}
    report(benchmark, medians(sides, rounds=3), ">= 2")
    benchmark.pedantic(encoder, (windows,), rounds=2)


def scored(classes: int) -> tuple[Tensor, Tensor]:
    """Assignments [2, 8, 784] and scores [2, 8, 1 + classes] of two windows."""
    torch.manual_seed(0)
    shares = torch.randn(2, 8, 784).softmax(dim=1)
    groups, images = torch.randn(2, 8, 256), torch.randn(2, 256)
    words, scale = torch.randn(classes, 256), torch.tensor(100.0)
    return shares, ovsegmentor_scores(groups, images, words, scale, 0.9)


@pytest.mark.parametrize("classes", [21, 150, 1000])
def test_mask_step_of_one_pass(benchmark: BenchmarkFixture, classes: int) -> None:
    """Scores per group to labels of a 1024x768 image."""
    shares, scores = scored(classes)
    benchmark(label_map, scores[0], (28, 28), (768, 1024), shares[0])


@pytest.mark.parametrize("classes", [21, 150, 1000])
def test_mask_step_of_windows(benchmark: BenchmarkFixture, classes: int) -> None:
    """Scores per group of two windows to labels of a 1024x768 image."""
    shares, scores = scored(classes)

    def labels() -> object:
        found = regions(GroupedImage(scores, (28, 28), shares), (448, 448))
        boxes = boxes_of(448, 597, 448, 224)
        return strongest(RegionMaps(scores, found, boxes, (448, 597), (768, 1024)))

    benchmark(labels)


def images_per_second(run: Callable[[], object], images: int) -> float:
    """Throughput over a few seconds, after warming up."""
    for _ in range(5):
        run()
    torch.cuda.synchronize()
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < GPU_SECONDS:
        for _ in range(5):
            run()
        torch.cuda.synchronize()
        done += 5 * images
    return done / (time.perf_counter() - start)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use")
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize(("size", "batch"), [(224, 256), (448, 64)])
@torch.no_grad()
def test_gpu_images_per_second(
    benchmark: BenchmarkFixture, size: int, batch: int, compiled: bool
) -> None:
    pixels = torch.randn(batch, 3, size, size, device="cuda", dtype=torch.bfloat16)
    found = {}
    for name, model in (("ovsegmentor", ours()), ("vit", bare(size))):
        model = model.to("cuda", torch.bfloat16)
        run = torch.compile(model) if compiled else model
        found[name] = images_per_second(lambda run=run: run(pixels), batch)
    ratio = found["ovsegmentor"] / found["vit"]
    speeds = ", ".join(f"{name} {speed:.0f} images/s" for name, speed in found.items())
    print(f"\n{torch.cuda.get_device_name()}, {size} px, bf16: {speeds}; ratio {ratio:.2f}")
    benchmark.extra_info.update(found)
    encoder = ours().to("cuda", torch.bfloat16)
    benchmark.pedantic(encoder, (pixels,), rounds=3, warmup_rounds=1)
