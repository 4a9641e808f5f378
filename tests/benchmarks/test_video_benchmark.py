"""Frames a second of a video, and what steadiness costs beside the model.

pytest --benchmark-only -s tests/benchmarks/test_video_benchmark.py
"""

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture

from ovseg import Segmenter
from ovseg.data.workers import read_ahead
from ovseg.inference.encode import encode_views
from ovseg.inference.protocol import own
from ovseg.inference.video.correspondence import Correspondence, Remembered
from ovseg.inference.video.frames import DINO, FOR_WORDS, VideoSettings, as_frames, to_follow
from ovseg.inference.video.memory import Features
from ovseg.inference.views import views_of
from ovseg.models.registry import load_model
from tests.benchmarks.sizes import full

SIZE = (full(480, 64), full(854, 96))
FRAMES = full(24, 3)


@pytest.fixture(scope="module")
def frames(chelsea: Path) -> list[np.ndarray]:
    """A photo that moves to the left."""
    image = Image.open(chelsea).convert("RGB").resize((SIZE[1] + 2 * FRAMES, SIZE[0]))
    pixels = np.asarray(image)
    return [np.ascontiguousarray(pixels[:, 2 * at : 2 * at + SIZE[1]]) for at in range(FRAMES)]


@pytest.mark.parametrize("settings", [FOR_WORDS, DINO], ids=["words", "masks"])
def test_share_of_propagation(
    benchmark: BenchmarkFixture, frames: list[np.ndarray], settings: Correspondence
) -> None:
    """Carrying two maps to a frame, and the starter on the same frame, in turns."""
    model = load_model("starter", "cpu")
    tiny = full({}, {"short_side": 64})
    protocol = own(**tiny).for_model(model) if settings is FOR_WORDS else to_follow(model, **tiny)

    def encoded(pixels: np.ndarray) -> Features:
        return Features.of(encode_views(model, views_of(pixels, protocol, model.preprocessing))[0])

    seen = [encoded(pixels) for pixels in frames[: settings.last + 1]]
    maps = np.full((seen[0].windows.shape[1], 2), 0.5, np.float32)
    context = [Remembered(each.windows[0], maps) for each in seen]
    least = [float("inf"), float("inf")]

    def in_turns() -> None:
        begun = time.perf_counter()
        now = encoded(frames[-1])
        between = time.perf_counter()
        settings.carry(now.windows[0], context, now.grid)
        least[0] = min(least[0], between - begun)
        least[1] = min(least[1], time.perf_counter() - between)

    benchmark.pedantic(in_turns, rounds=full(7, 1), warmup_rounds=1)
    alone, carrying = (1000 * seconds for seconds in least)
    share = f"{carrying / alone:.2f} of it, at {protocol.short_side} pixels"
    print(f"\nmodel {alone:.0f} ms, propagation {carrying:.0f} ms, {share}", end="")


@pytest.mark.parametrize("steadiness", [0.0, 0.9])
def test_frames_per_second(
    benchmark: BenchmarkFixture, frames: list[np.ndarray], steadiness: float
) -> None:
    segmenter = Segmenter(load_model("starter", "cpu"))
    settings = VideoSettings(steadiness=steadiness)

    def through() -> int:
        pixels = (frame.pixels for frame in read_ahead(as_frames(frames)))
        return sum(1 for _ in segmenter.segment_video(pixels, "cat,dog", settings=settings))

    begun = time.perf_counter()
    count = benchmark.pedantic(through, rounds=1)
    rate = count / (time.perf_counter() - begun)
    print(f"\nsteadiness {steadiness}: {rate:.2f} frames a second", end="")
