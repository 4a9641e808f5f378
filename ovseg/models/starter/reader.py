"""How the classifier is read at every position of an image.

Letters: B image, H W pixels, h w rows and columns of features, N = h*w, M key, D feature, C class,
E width of captions' embeddings, P = 4*N position of the result.

Written as a module of plain tensor operations, without a line that asks how large the image is, so
that what is exported is what is run here. Every step was measured; docs/starter.md has the table.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ovseg.models.normalisation import IMAGENET, PLUS_MINUS_ONE, Renormalisation
from ovseg.models.starter.captions import STAGES, CaptionReader, at_keys, log_sum_exp
from ovseg.models.starter.network import STRIDE, EfficientNetLite
from ovseg.models.starter.saliency import SaliencyNetwork

CELL = STRIDE // 2
"""Pixels from one position of the result to the next."""
EPSILON = 1e-3
"""Added to a deviation that may be zero."""
MIDDLE = 4
"""The stage whose output tells which positions of two frames show the same (docs/video.md)."""
REGION = 5
"""The stage whose output tells which positions belong to the same surroundings."""


@dataclass(frozen=True)
class ReadingRule:
    """The numbers of a reading; each was measured.

    Attributes:
        sharpness: what cosines of features are multiplied by before the softmax that mixes them.
        around_sharpness: the same where surroundings are mixed.
        around_middle: what cosines of a middle stage are multiplied by there.
        apartness: what is taken off where one of two shows an object and the other does not.
        rounds: how often they are mixed.
        keys: rows and columns of the places that are mixed with each other, however large the
            image is.
        contrast: how steeply the evidence rises with the deviations from the image's mean.
        usual: what surroundings count that are as likely as all words together.
        alone: what things count that captions alone know and that are as likely as all words.
        floor: what objects and surroundings count at least, before the power below.
        steepness: the power of what a class counts by how much its position stands out.
        coarse_share: what the logits of the half-sized image weigh.
        sharpening: how much of what a blur would take away is added to the half-sized image.
    """

    sharpness: float = 6.5
    around_sharpness: float = 4.0
    around_middle: float = 4.0
    apartness: float = 6.0
    rounds: int = 5
    keys: int = 18
    contrast: float = 1.0
    usual: float = 0.0033
    alone: float = 0.0022
    floor: float = 0.1
    steepness: float = 1.5
    coarse_share: float = 0.4
    sharpening: float = 0.5


class PositionReading(NamedTuple):
    """What positions are, float [B, N, C + 2 * (E + 1)], and the grid of the result (h, w).

    Behind the classes' probabilities, which sum to that of there being any of them, comes what
    words of things and of surroundings are multiplied by. `weights`, float [B, P, 3], are what
    classes, things that captions alone know and surroundings count at the grid's positions, which
    are twice as fine: what is read changes less from one to the next than what stands out.

    `middle` is what a middle stage sees, float [B, N, 88]: it follows a region from frame to frame
    far better than what the classifier reads. `stages`, float [B, N, 1032], is what all stages see
    that are read, at both scales, the half-sized image's enlarged: what classes are taught on.
    """

    positions: Tensor
    grid: tuple[int, int]
    middle: Tensor
    stages: Tensor
    weights: Tensor


class PositionReader(nn.Module):
    """Probabilities at every position, from two scales, smoothed along the features.

    Args:
        network: the classifier, C classes.
        captions: what captions taught about its features.
        saliency: tells objects, whatever they are, from what surrounds them.
        rule: how all of it is read.
    """

    def __init__(
        self,
        network: EfficientNetLite,
        captions: CaptionReader,
        saliency: SaliencyNetwork,
        rule: ReadingRule | None = None,
    ) -> None:
        super().__init__()
        self.rule = rule or ReadingRule()
        self.network = network
        self.captions = captions
        self.saliency = saliency
        self.renormalise = Renormalisation(PLUS_MINUS_ONE, IMAGENET)

    def forward(self, pixels: Tensor) -> PositionReading:
        """Read normalised images, float [B, 3, H, W], sides multiples of twice the stride."""
        rule = self.rule
        features, seen = self.network.features_and_stages(pixels, (MIDDLE, *STAGES))  # [B, D, h, w]
        middle, fine = seen.tensor_split([self.network.stages[MIDDLE - 1].width], dim=1)
        half = functional.avg_pool2d(pixels, 2)
        salience = self.saliency(self.renormalise(half))  # [B, 1, 2h, 2w]
        halved = self.network.features_and_stages(sharpened(half, rule.sharpening), STAGES)
        described = self.captions(fine, halved[1], rule.keys)
        logits, positions, around = self._shared(
            features, fine, salience, self._logits(features, halved[0]), described.positions
        )
        objects = logits.softmax(dim=-1) * evidence(logits, rule.contrast)
        compared = self.captions.compared(positions, around, described.image)
        standing_out = (1 - rule.floor) * salience.flatten(2).mT  # [B, P, 1]
        weight = (rule.floor + standing_out) ** rule.steepness
        grid = (pixels.shape[-2] // CELL, pixels.shape[-1] // CELL)
        half_grid = (pixels.shape[-2] // STRIDE, pixels.shape[-1] // STRIDE)
        return PositionReading(
            torch.cat([objects, *compared], dim=-1),
            grid,
            middle.flatten(2).mT,
            torch.cat([seen.flatten(2).mT, finer(halved[1].flatten(2).mT, half_grid)], dim=-1),
            torch.cat([weight, rule.alone * weight, rule.usual * (1 - standing_out)], dim=-1),
        )

    def _shared(
        self, features: Tensor, stages: Tensor, salience: Tensor, logits: Tensor, said: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What was found at keys, shared among places that are alike: things, and surroundings.

        Args:
            features: what the classifier reads, float [B, D, h, w].
            stages: those of `STAGES`, which `REGION` is the first of, float [B, D', h, w].
            salience: float [B, 1, 2h, 2w].
            logits: of classes at keys, float [B, M, C].
            said: embeddings, float [B, M, E].

        Returns:
            float [B, N, C] logits, and [B, N, E] embeddings as things and as surroundings share.
        """
        rule = self.rule
        region = stages[:, : self.network.stages[REGION - 1].width]
        distance = apart(salience, rule)
        last, regions = alike(features, rule.keys), alike(region, rule.keys)
        of_things = pulled(distance, (rule.sharpness, last))
        of_stuff = pulled(distance, (rule.around_sharpness, last), (rule.around_middle, regions))
        things = mixed(torch.cat([logits, said], dim=-1), of_things, rule)  # [B, N, C + E]
        classes = logits.shape[-1]
        return things[..., :classes], things[..., classes:], mixed(said, of_stuff, rule)

    def _logits(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Class logits at the keys, of two scales, float [B, M, C].

        The classifier is linear, so that mean features have mean logits.
        """
        share, keys = self.rule.coarse_share, self.rule.keys
        both = (1 - share) * at_keys(fine, keys) + share * at_keys(coarse, keys)
        return self.network.classifier(both)


class Pairs(NamedTuple):
    """Something of every pair of places, float: of keys with keys, and of positions with keys."""

    among: Tensor  # [B, M, M]
    taken: Tensor  # [B, N, M]


def mixed(found: Tensor, pull: Pairs, rule: ReadingRule) -> Tensor:
    """What was found at keys, float [B, M, X], shared among places that are alike, [B, N, X].

    A class spreads so over its object, and a stray one is outvoted. All take from the same number
    of keys, so that time and memory grow with the features and not with their square. Each takes
    from all keys, as a softmax of how they pull says.
    """
    among, taken = (each.softmax(dim=-1) for each in pull)
    return taken @ (torch.linalg.matrix_power(among, rule.rounds - 1) @ found)


def pulled(distance: Pairs, *likenesses: tuple[float, Pairs]) -> Pairs:
    """How much places pull: likenesses, each times its sharpness, less what keeps them apart."""
    among, taken = -distance.among, -distance.taken
    for sharpness, each in likenesses:
        among, taken = among + sharpness * each.among, taken + sharpness * each.taken
    return Pairs(among, taken)


def alike(features: Tensor, keys: int) -> Pairs:
    """Cosines of features, float [B, D, h, w], without what all of the image have in common."""
    common = features.mean(dim=(2, 3))[:, None]  # along rows in memory, which is ten times as fast
    vectors = features.flatten(2).mT - common  # [B, N, D]
    at = at_keys(features, keys) - common  # [B, M, D]
    taken = vectors @ at.mT  # [B, N, M]
    # Keys are mixtures of positions: so are their products with keys of those of positions.
    among = at_keys(taken.mT.unflatten(-1, features.shape[-2:]), keys)
    lengths = (x.square().sum(dim=-1, keepdim=True).sqrt() for x in (vectors, at))
    each, own = (length.clamp_min(EPSILON) for length in lengths)
    return Pairs(among / own / own.mT, taken / each / own.mT)


def apart(salience: Tensor, rule: ReadingRule) -> Pairs:
    """What is taken off for other salience, of a map float [B, 1, 2h, 2w]."""
    at = at_keys(salience, rule.keys)  # [B, M, 1]
    positions = functional.avg_pool2d(salience, 2).flatten(2).mT  # [B, N, 1]
    return Pairs(*(rule.apartness * (each - at.mT).abs() for each in (at, positions)))


def evidence(logits: Tensor, contrast: float) -> Tensor:
    """How likely each position shows any of the classes at all, float [B, N, 1], of [B, N, C].

    The logarithm of the summed exponentials is low where a classifier has seen nothing like it
    (Liu et al., Energy-based Out-of-distribution Detection, NeurIPS 2020); here it is compared with
    the rest of the image.
    """
    energy = log_sum_exp(logits)
    centred = energy - energy.mean(dim=1, keepdim=True)
    spread = centred.square().mean(dim=1, keepdim=True).sqrt()
    return torch.sigmoid(contrast * centred / (spread + EPSILON))


def sharpened(pixels: Tensor, share: float) -> Tensor:
    """Images [B, 3, H, W] with more contrast at edges, which halving takes away."""
    blurred = sums(pixels) / sums(torch.ones_like(pixels[:1, :1]))
    return pixels + share * (pixels - blurred)


def sums(pixels: Tensor) -> Tensor:
    """Of every 3x3 of images [B, D, H, W]; pooling takes ONNX Runtime three times as long."""
    x = functional.pad(pixels, (1, 1, 1, 1))
    x = x[:, :, :-2] + x[:, :, 1:-1] + x[:, :, 2:]
    return x[..., :-2] + x[..., 1:-1] + x[..., 2:]


def finer(values: Tensor, grid: tuple[int, int]) -> Tensor:
    """Values at every second position, float [B, N, X], at all of a grid, float [B, P, X]."""
    maps = values.mT.unflatten(-1, (grid[0] // 2, grid[1] // 2))
    enlarged = functional.interpolate(maps, grid, mode="bilinear", align_corners=False)
    return enlarged.flatten(2).mT
