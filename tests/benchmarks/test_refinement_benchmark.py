"""What each refinement costs beside the forward of a ViT-B/16, at 448 pixels and 21 classes.

python -m pytest tests/benchmarks/test_refinement_benchmark.py --benchmark-only -s

Both sides are measured alternately in one run, on random weights, and the ratio of the least times
is printed. Features are the model's own; a named backbone costs its own forward beside.
"""

import resource

import numpy as np
import open_clip
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from ovseg.data.class_list import ClassList
from ovseg.inference.encode import encode_views
from ovseg.inference.labeller import Labeller
from ovseg.inference.protocol import own
from ovseg.models.clip.model import DenseImageEncoder
from ovseg.models.clip.tower import image_tower
from ovseg.models.interface import GroupedImage, ModelCard, Preprocessing
from tests.benchmarks.sizes import full
from tests.benchmarks.test_dense_benchmark import compare

SIDE = full(448, 64)
CLASSES = ClassList.of([f"class {number}" for number in range(full(21, 3))])
STEPS = ("none", "guided", "pamr", "affinity", "lposs", "lposs+half", "lposs+")


class Network:
    """A random ViT-B/16 read by NACLIP."""

    templates = ("{}",)
    threshold = 0.0
    preprocessing = Preprocessing((127.5,) * 3, (127.5,) * 3, SIDE, multiple_of=16)
    card = ModelCard("random", "fake", "", "", "0" * 64)

    def __init__(self) -> None:
        config = open_clip.get_model_config("ViT-B-16-quickgelu")
        for part in ("vision_cfg", "text_cfg"):
            config[part]["layers"] = full(12, 2)
        visual = open_clip.CLIP(**config).visual.eval().requires_grad_(False)
        self.encoder = DenseImageEncoder(image_tower(visual), "naclip")

    def from_numpy(self, values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values)

    def encode_image(self, pixels: torch.Tensor) -> GroupedImage:
        return GroupedImage(self.encoder(pixels), self.encoder.grid(*pixels.shape[2:]))


class Words:
    """Random vectors for the classes."""

    def get(self, phrases: tuple[str, ...], templates: tuple[str, ...]) -> np.ndarray:
        vectors = np.random.default_rng(0).normal(size=(len(phrases), 512)).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def model() -> Network:
    torch.manual_seed(0)
    return Network()


def photo() -> np.ndarray:
    """Smooth, as photos are: neighbours with like colours have large weights."""
    small = np.random.default_rng(0).random((3, 8, 8)).astype(np.float32)
    large = torch.nn.functional.interpolate(
        torch.from_numpy(small)[None], (SIDE, SIDE), mode="bicubic"
    )
    return (large[0].clamp(0, 1) * 255).permute(1, 2, 0).numpy().astype(np.uint8)


@pytest.mark.parametrize("step", STEPS[1:])
def test_cost_beside_a_forward(benchmark: BenchmarkFixture, model: Network, step: str) -> None:
    image = photo()

    def labeller(refine: str) -> Labeller:
        protocol = own(rule="probability", scale=40.0, refine=refine, background=False)
        filled = protocol.for_model(model, background=False)  # type: ignore[arg-type]
        return Labeller(model, filled, CLASSES, Words())  # type: ignore[arg-type]

    plain, refined = labeller("none"), labeller(step)
    views = encode_views(model, plain.views(image))
    shape = image.shape[:2]

    def forward() -> object:
        return encode_views(model, plain.views(image))

    seconds = compare(
        benchmark,
        rounds=3,
        forward=forward,
        plain=lambda: plain.labels_at(views, shape, [None]),
        refined=lambda: refined.labels_at(views, shape, [None]),
    )
    share = (seconds["refined"] - seconds["plain"]) / seconds["forward"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"\n{step}: {share:.2f} of a forward; most memory so far {peak:.0f} MB", end="")
