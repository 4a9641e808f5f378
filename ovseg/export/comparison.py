"""How alike two answers to one image are, and how long they take."""

from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter

import torch

from ovseg.export.graphs import Found
from ovseg.export.programs import Inputs

REPEATS = 3


@dataclass(frozen=True)
class Sample:
    """An image as it reaches the graph, and what the model itself makes of it.

    Attributes:
        name: of the image.
        inputs: of the graph: pixels, class embeddings, threshold.
        found: the outputs wanted.
    """

    name: str
    inputs: Inputs = field(repr=False)
    found: Found = field(repr=False)


@dataclass(frozen=True)
class Likeness:
    """How alike two answers are.

    Attributes:
        difference: largest difference of a score, -inf columns left out.
        agreement: share of pixels with the same label, 0..1.
    """

    difference: float
    agreement: float


def compare(wanted: Found, found: Found) -> Likeness:
    """Compare scores and labels; answers of other shapes agree nowhere."""
    if wanted.labels.shape != found.labels.shape or wanted.scores.shape != found.scores.shape:
        return Likeness(float("inf"), 0.0)
    apart = (wanted.scores - found.scores).abs()
    apart = apart[torch.isfinite(wanted.scores)]
    same = (wanted.labels == found.labels).double().mean()
    return Likeness(float(apart.max()), float(same))


def timed(call: Callable[[], object]) -> float:
    """Seconds that a call takes: the median of a few. Whoever wants no cold one calls it before."""
    times = []
    for _ in range(REPEATS):
        start = perf_counter()
        call()
        times.append(perf_counter() - start)
    return median(times)
