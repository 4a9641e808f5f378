"""Refinements by name, one after the other: what `--refine lposs,pamr` means.

Steps on patches come first, since they work where the model has its scores; then the step on the
pixels of the network's image (`lposs+`, or on half as many a side `lposs+half`), then those on the
pixels of the original one.
"""

from dataclasses import dataclass
from itertools import pairwise

from ovseg.errors import UsageError

NONE = "none"
STAGES = {"affinity": 0, "lposs": 0, "lposs+": 1, "lposs+half": 1, "pamr": 2, "guided": 2}
"""Every step with its stage: 0 on patches, 1 on patches and the network's pixels, 2 on pixels."""

WITH_FEATURES = ("affinity", "lposs", "lposs+", "lposs+half")
"""Steps that go by features, the model's own or those of a named backbone."""

PROPAGATING = ("lposs", "lposs+", "lposs+half")
"""Steps that spread scores over a graph."""

SHRINKING = {"lposs+": 1, "lposs+half": 2}
"""Those that go on over the pixels of the network's image, and by how much it is smaller then."""


@dataclass(frozen=True)
class Step:
    """One refinement.

    Attributes:
        name: a key of `STAGES`.
        backbone: timm model whose features it goes by, as NAME or NAME@FILE; empty for the model's
            own.
    """

    name: str
    backbone: str = ""

    @property
    def on_patches(self) -> bool:
        """Whether it changes the scores of patches."""
        return STAGES[self.name] < 2


def parse_chain(text: str) -> tuple[Step, ...]:
    """Read `none`, or steps separated by commas, such as `lposs=vit_base_patch16_224.dino,pamr`.

    Raises:
        UsageError: there is no such step, one that has no backbone is given one, or a step on
            patches follows one on pixels.
    """
    if text == NONE:
        return ()
    steps = tuple(_parse_step(part.strip()) for part in text.split(","))
    for before, after in pairwise(steps):
        if STAGES[after.name] < STAGES[before.name]:
            raise UsageError(
                f"refine {text}: {after.name} works on patches, so it comes before {before.name}: "
                f"{after.name},{before.name}"
            )
    return steps


def _parse_step(text: str) -> Step:
    name, equals, backbone = text.partition("=")
    if name not in STAGES:
        choices = ", ".join((NONE, *STAGES))
        raise UsageError(f"unknown refinement '{name}': choose {choices}, or several as lposs,pamr")
    if equals and (name not in WITH_FEATURES or not backbone):
        raise UsageError(
            f"refine {text}: {', '.join(WITH_FEATURES)} take a backbone, as "
            "lposs=vit_base_patch16_224.dino; the others go by the image alone"
        )
    return Step(name, backbone)
