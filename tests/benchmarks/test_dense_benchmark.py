"""Dense CLIP on random weights: what the head, the vocabulary, windows and PAMR cost.

python -m pytest tests/benchmarks/test_dense_benchmark.py --benchmark-only -s

Each benchmark measures both sides of its ratio alternately in one run and prints the ratio of the
least times: on a machine that others use as well, only that means something.
"""

import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from pytest_benchmark.fixture import BenchmarkFixture

from ovseg.inference.derived_maps import RefinedMaps
from ovseg.inference.labels import PixelRule, label_pixels
from ovseg.inference.maps import PositionMaps
from ovseg.inference.protocol import own
from ovseg.inference.refine.pamr import Pamr
from ovseg.models.clip.model import DenseImageEncoder
from ovseg.models.clip.tower import image_tower
from ovseg.models.interface import GroupedImage
from tests.benchmarks.sizes import full
from tests.inference.one_image import cosine_maps

SIDE = full(448, 112)
THOUSAND = full(1000, 50)
PHRASES = full(46, 4)
RULE = PixelRule(40)
THRESHOLD = 0.1
Work = Callable[[], object]


class Network:
    """A random ViT-B/16 with a head, as a dense model."""

    def __init__(self, visual: torch.nn.Module, head: str = "naclip") -> None:
        self.encoder = DenseImageEncoder(image_tower(visual), head)

    def from_numpy(self, values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values)

    def encode_image(self, pixels: torch.Tensor) -> GroupedImage:
        return GroupedImage(self.encoder(pixels), self.encoder.grid(*pixels.shape[2:]))


@pytest.fixture(scope="module")
def visual() -> torch.nn.Module:
    torch.manual_seed(0)
    config = open_clip.get_model_config("ViT-B-16-quickgelu")
    for part in ("vision_cfg", "text_cfg"):
        config[part]["layers"] = full(12, 2)
    return open_clip.CLIP(**config).visual.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def naclip(visual: torch.nn.Module) -> Network:
    return Network(visual)


def texts(number: int) -> torch.Tensor:
    """Embeddings of phrases that have nothing to do with each other, [Q, 512]."""
    generator = torch.Generator().manual_seed(number)
    return F.normalize(torch.randn(number, 512, generator=generator), dim=-1)


def photo(height: int = SIDE, width: int = SIDE) -> torch.Tensor:
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(1))


def compare(benchmark: BenchmarkFixture, rounds: int = 5, **works: Work) -> dict[str, float]:
    """Least seconds of each work, taken in turns; the first is what the others are divided by."""
    seconds = dict.fromkeys(works, float("inf"))

    @torch.inference_mode()
    def in_turns() -> None:
        for name, work in works.items():
            started = time.perf_counter()
            work()
            seconds[name] = min(seconds[name], time.perf_counter() - started)

    benchmark.pedantic(in_turns, rounds=full(rounds, 1), warmup_rounds=1)
    first = next(iter(seconds))
    for name, value in seconds.items():
        benchmark.extra_info[name] = value
        print(f"\n{name}: {value * 1000:.0f} ms, {value / seconds[first]:.2f} of {first}", end="")
    return seconds


def test_naclip_against_the_bare_tower(
    benchmark: BenchmarkFixture, visual: torch.nn.Module, naclip: Network
) -> None:
    """The tower as open_clip runs it, at the same size with its own positions resized once."""
    pixels = photo()
    bare = image_tower(visual)

    def tower() -> torch.Tensor:
        x = visual.transformer.resblocks[-1](bare.tokens(pixels))
        return visual.ln_post(x[:, 0]) @ visual.proj

    compare(benchmark, rounds=10, tower=tower, naclip=lambda: naclip.encode_image(pixels))


@pytest.mark.parametrize("threshold", [0.0, 0.1])
def test_a_thousand_classes_against_twenty(
    benchmark: BenchmarkFixture, naclip: Network, threshold: float
) -> None:
    pixels, once = photo()[0], own(window="none")

    def classes(number: int) -> Work:
        text = texts(number)

        def work() -> object:
            maps = cosine_maps(naclip, pixels, text, once, (SIDE, SIDE))
            return label_pixels(maps, range(number), RULE, [threshold])

        return work

    compare(benchmark, rounds=3, twenty=classes(20), thousand=classes(THOUSAND))


def test_memory_of_a_thousand_classes(benchmark: BenchmarkFixture) -> None:
    """Most bytes the labelling of a 1024 x 768 photo holds, on NumPy, where they can be counted."""
    draw = np.random.default_rng(0)
    features = draw.normal(size=(28, 37, 64)).cumsum(axis=0).cumsum(axis=1)
    features /= np.linalg.norm(features, axis=-1, keepdims=True)
    text = draw.normal(size=(64, 1000)) / 8
    cosines = (features @ text / 8).astype(np.float32)

    def peak() -> int:
        tracemalloc.start()
        label_pixels(PositionMaps.on_grid(cosines, (768, 1024)), range(1000), RULE, [THRESHOLD])
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    most = benchmark.pedantic(peak, rounds=1)
    print(f"\n1,000 classes at 1024 x 768: {most / 1e6:.0f} MB beyond the scores", end="")
    assert most < 150e6


def test_windows_in_batches_against_one_by_one(
    benchmark: BenchmarkFixture, naclip: Network
) -> None:
    pixels, text, windows = photo(336, 448)[0], texts(20), own(window=224, stride=112)

    def through(batch: int) -> Work:
        return lambda: cosine_maps(naclip, pixels, text, windows, (336, 448), batch)

    compare(benchmark, rounds=3, one_by_one=through(1), batched=through(8))


def test_share_of_pamr(benchmark: BenchmarkFixture, naclip: Network) -> None:
    """46 phrases (20 classes of VOC with 26 words for the background) at 500 x 375."""
    pixels, text, shape = photo(336, 448)[0], texts(PHRASES), full((375, 500), (75, 100))
    image = torch.rand(3, *shape, generator=torch.Generator().manual_seed(2))
    windows = own(window=224, stride=112)

    def segment(refine: bool) -> Work:
        def work() -> object:
            maps = cosine_maps(naclip, pixels, text, windows, shape)
            chosen = RefinedMaps(maps, Pamr().guided_by(image)) if refine else maps
            return label_pixels(chosen, range(PHRASES), RULE, [THRESHOLD])

        return work

    compare(benchmark, rounds=2, without=segment(False), with_pamr=segment(True))
