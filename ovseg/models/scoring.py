"""How strongly each group of an image shows each class: one rule per family of models.

Torch models, exported models in NumPy and the graphs that are exported call the same functions,
which keep to the array API. So that a graph can be traced from them, no line depends on a value:
the number of classes and the threshold may be known only when the graph runs.

Every rule returns the background as column 0, which is -inf where there is to be none.

Letters: B image, G group, P position, K class, Q phrase, A attention head, C embedding width (of
the starter: the classes of its classifier).
"""

from math import inf
from numbers import Real
from typing import Any, NamedTuple

import array_api_compat

from ovseg.models.enlarging import enlarged, factor
from ovseg.models.interface import Array, GroupedImage, array_namespace

LIKELY_CLASSES = 5
"""How many classes OVSegmentor keeps as those that the whole image is most like."""
CAUTION = 0.3
"""The power of the number of phrases by which the starter's scores fall."""
LEAST_SHARE = 0.02
"""What a score of the starter must have of the phrase's best in the image to count at all."""
LEAST_PLACES = 8
"""Positions that a phrase must win to count at all: two of what the starter's network sees, each
of which is four of the result's."""

MOST_LIKELIER = 4.0
"""How far, as a logarithm, captions may change what the starter's classes say."""
EVEN = 0.004
"""What the starter's probabilities times its powers come to at a score of one half: of all that
scores more, half is right or more; see docs/starter.md."""

_LEAST_NORM = 1e-12
_LEAST_BOUND = 1e-37  # what a logarithm may be taken of in float32


def ovsegmentor_scores(
    groups: Array, images: Array, classes: Array, scale: Any, threshold: float | Array | None
) -> Array:
    """OVSegmentor's inference rule: background and classes per group, float [B, G, 1 + K].

    With `S` the scaled cosines of groups and classes, `P = softmax(S)` over all classes and `P5`
    the softmax over the classes that the whole image is most like, a class scores `P5 * P`.
    Background scores 1 where the best class of a group stays below `threshold` and below the best
    score of any group of the image, else 0.

    Args:
        groups: group embeddings, float [B, G, C]; any length.
        images: image embeddings, float [B, C]; any length.
        classes: class embeddings, float [K, C]; any length.
        scale: what cosines are multiplied by, a number or float [].
        threshold: of the background, a number or float []; None or -inf for no background.
    """
    xp = array_namespace(groups)
    groups, images, classes = (_unit(x) for x in (groups, images, classes))
    similarity = scale * (groups @ classes.T)  # [B, G, K]
    likely = _largest(images @ classes.T, LIKELY_CLASSES)[:, None, :]  # [B, 1, K]
    among = xp.where(likely, similarity, xp.full_like(similarity, -inf))
    scores = _softmax(among) * _softmax(similarity)
    bound = _bound(threshold, scores)
    best = xp.max(scores, axis=-1, keepdims=True)  # [B, G, 1]
    limit = xp.minimum(xp.max(best, axis=1, keepdims=True), bound)
    background = xp.astype(best < limit, scores.dtype)
    background = xp.where(bound > -inf, background, xp.full_like(best, -inf))
    return xp.concat([background, scores], axis=-1)


def dense_clip_scores(
    positions: Array, classes: Array, scale: float, threshold: float | Array | None
) -> Array:
    """Dense CLIP's scaled cosines behind their background, float [B, P, 1 + K].

    Background is what a class must exceed for its probability, by a softmax over the classes, to
    reach the threshold.

    Args:
        positions: features, float [B, P, C], unit length.
        classes: class embeddings, float [K, C], unit length.
        scale: what cosines are multiplied by.
        threshold: a probability, a number or float []; 0, -inf or None for no background.
    """
    xp = array_namespace(positions)
    scores = scale * (positions @ classes.T)  # [B, P, K]
    bound = _bound(threshold, scores)
    most = xp.max(scores, axis=-1, keepdims=True)
    total = xp.sum(xp.exp(scores - most), axis=-1, keepdims=True)
    bar = xp.log(total) + most + xp.log(xp.clip(bound, min=_LEAST_BOUND))
    bar = xp.where(bound > 0, bar, xp.full_like(bar, -inf))
    return xp.concat([bar, scores], axis=-1)


class Weights(NamedTuple):
    """What classes, things without a class and surroundings of the starter count.

    Attributes:
        values: float [B, P, 3].
        grid: rows and columns of the P positions.
        times: by how much it is finer, along both sides, than that of what is read.
    """

    values: Array
    grid: tuple[int, int]
    times: int

    @classmethod
    def of(cls, grouped: GroupedImage) -> "Weights | None":
        """Those of an encoded image; None where it has none, as of older exports."""
        if grouped.weights is None:
            return None
        times = factor(grouped.weights.shape[1], grouped.embedding.shape[1])
        return cls(grouped.weights, grouped.grid, times)


def starter_scores(
    positions: Array,
    words: Array,
    threshold: float | Array | None,
    captions: int = 0,
    weights: "Weights | None" = None,
) -> Array:
    """The starter's scores of background and of each phrase, float [B, P, 1 + Q].

    A phrase scores the probability that it, or something that it is grounded in, is there, lowered
    by the number of phrases that are grounded at all: each is one more chance to be wrong, and of
    two words that are asked for, each is more likely to be in the image than of eighty. Where there
    is a background, a phrase scores 0 where it has too little of what it has at its best position:
    what merely surrounds an object that was found for certain is so left to the background, and not
    to a phrase that has still less there. A phrase that wins no more than a speck scores 0
    everywhere.

    Where captions taught something, the probability is multiplied by a power of how much likelier
    than other words they make it, and a word for surroundings, or for a thing without a class, has
    that itself besides, however many are asked for. What comes out is brought to between 0 and 1:
    above one half, half of what is painted is right or more, and no position outweighs its
    neighbours by being certain where maps are enlarged.

    Args:
        positions: probability of every class at every position, float [B, P, C]; with captions
            behind them what words of things and of surroundings are multiplied by, E + 1 each, and
            what things without a class and surroundings count. With weights the last two are not
            there, and positions may be those of a coarser grid.
        words: share of every class in every phrase, float [Q, C]; zeros where there is none; with
            captions embedding and 1, twice, and how much the phrase is one of these two.
        threshold: the score of the background, the same everywhere, a number or float []; None or
            -inf for no background.
        captions: E + 1; 0 without them.
        weights: what is multiplied by at all positions of a finer grid; None where positions are
            those of the result.
    """
    xp = array_namespace(positions)
    classes = words.shape[-1] - (2 * captions + 2 if captions else 0)
    shares = words[..., :classes]
    parts = [positions[..., :classes] @ shares.T]  # [B, P, Q] each, or as many positions as there
    weight = xp.sum(shares, axis=-1)
    if captions:
        ends = (classes, classes + captions, classes + 2 * captions)
        for part in (slice(*ends[:2]), slice(*ends[1:])):
            parts.append(positions[..., part] @ words[..., part].T)
        weight = weight + xp.sum(words[..., -2:], axis=-1)
    if weights is not None:
        parts = [enlarged(part, weights.grid, weights.times) for part in parts]
    grounded = xp.sum(xp.astype(weight > 0, words.dtype))
    phrases = parts[0] * xp.clip(grounded, min=1) ** -CAUTION
    if weights is not None:
        phrases = phrases * weights.values[..., :1]
    if captions:
        phrases = phrases * xp.exp(xp.clip(parts[1], min=-MOST_LIKELIER, max=MOST_LIKELIER))
        counts = positions if weights is None else weights.values
        alone = counts[..., -2:] @ words[..., -2:].T
        phrases = phrases + alone * xp.exp(xp.clip(parts[2], max=MOST_LIKELIER))
    bound = _bound(threshold, phrases)
    least = LEAST_SHARE * xp.astype(bound > -inf, phrases.dtype)
    best = xp.max(phrases, axis=1, keepdims=True)  # [B, 1, Q]
    nothing, left = xp.zeros_like(phrases), phrases < least * best
    outdone = xp.max(xp.where(left, phrases, nothing), axis=-1, keepdims=True)
    phrases = xp.where(left | (phrases < outdone), nothing, phrases)
    if captions:
        phrases = phrases / (phrases + EVEN)
    phrases = _without_specks(phrases, bound)
    return xp.concat([xp.zeros_like(phrases[..., :1]) + bound, phrases], axis=-1)


def _without_specks(phrases: Array, bound: Array) -> Array:
    """Scores, float [B, P, Q], 0 for phrases that win too few positions where there is a bound."""
    xp = array_namespace(phrases)
    best = xp.max(phrases, axis=-1, keepdims=True)
    wins = xp.astype((phrases >= best) & (phrases > bound), phrases.dtype)
    places = xp.sum(wins, axis=1, keepdims=True)  # [B, 1, Q]
    specks = (places > 0) & (places < LEAST_PLACES) & (bound > -inf)
    return xp.where(specks, xp.zeros_like(phrases), phrases)


def aligned_scores(
    positions: Array,
    classes: Array,
    scale: Any,
    bias: Any,
    threshold: float | Array | None,
    clean: "Cleaning | None" = None,
) -> Array:
    """An aligned model's scores of background and of each class, float [B, P, 1 + K].

    A class scores the sigmoid of `scale` times its product with a position, plus `bias`. Where
    there is a background, it is a constant, and what the image's attention heads look at for a
    class may count as well (`Cleaning`).

    Args:
        positions: of unit length, but for what is added for offsets of words, float [B, P, C].
        classes: class embeddings of unit length, float [K, C].
        scale, bias: numbers or float [].
        threshold: of the background, a number or float []; None or -inf for no background.
        clean: the attention heads; None leaves them out.
    """
    xp = array_namespace(positions)
    scores = 1 / (1 + xp.exp(-(scale * (positions @ classes.T) + bias)))  # [B, P, K]
    bound = _bound(threshold, scores)
    if clean is not None:
        scores = xp.where(bound > -inf, clean.of(scores, classes), scores)
    return xp.concat([xp.zeros_like(scores[..., :1]) + bound, scores], axis=-1)


class Cleaning(NamedTuple):
    """What attention heads look at, to clean backgrounds with.

    Talk2DINO (Barsellotti et al. 2024, section 3.3): each class takes the attention of the heads,
    weighted by how alike it and what they see are; as a share over the positions, brought to the
    range of the scores, it is averaged with them.

    Attributes:
        heads: embeddings of what each head sees, float [B, A, C], unit length.
        attention: logits of where each head looks, float [B, A, P].
        weight: of the attention in the average, where scores have 1.
    """

    heads: Array
    attention: Array
    weight: float

    def of(self, scores: Array, classes: Array) -> Array:
        """Scores float [B, P, K] averaged with the attention for each class, [K, C]."""
        xp = array_namespace(scores)
        alike = xp.matrix_transpose(self.heads @ classes.T)  # [B, K, A]
        looked = _softmax(xp.matrix_transpose(_softmax(alike) @ self.attention), axis=1)
        low, high = _extremes(looked)
        low_score, high_score = _extremes(scores)
        # The largest stays below 1: it is divided by what it was before the smallest is taken off.
        shares = (looked - low) / high * (high_score - low_score) + low_score
        return (scores + self.weight * shares) / (1 + self.weight)


def _extremes(values: Array) -> tuple[Array, Array]:
    """Smallest and largest value of each image, [B, 1, 1] each."""
    xp = array_namespace(values)
    axes = (1, 2)
    return xp.min(values, axis=axes, keepdims=True), xp.max(values, axis=axes, keepdims=True)


def _bound(threshold: float | Array | None, scores: Array) -> Array:
    """A threshold as an array [] of the kind of the scores; -inf for None."""
    if threshold is not None and not isinstance(threshold, Real):
        return threshold
    xp = array_namespace(scores)
    device = array_api_compat.device(scores)
    return xp.asarray(-inf if threshold is None else threshold, dtype=scores.dtype, device=device)


def _unit(x: Array) -> Array:
    """Vectors along the last axis, brought to length 1."""
    xp = array_namespace(x)
    norm = xp.linalg.vector_norm(x, axis=-1, keepdims=True)
    return x / xp.clip(norm, min=_LEAST_NORM)


def _softmax(x: Array, axis: int = -1) -> Array:
    """Along an axis; what is -inf gets 0."""
    xp = array_namespace(x)
    weights = xp.exp(x - xp.max(x, axis=axis, keepdims=True))
    return weights / xp.sum(weights, axis=axis, keepdims=True)


def _largest(values: Array, count: int) -> Array:
    """Where the `count` largest values of each row are, bool [B, K]; everywhere if K is less.

    Of equal values the first is taken. One after the other, since the standard has no top-k and a
    sort of many classes is slow.
    """
    xp = array_namespace(values)
    columns = xp.arange(values.shape[-1], device=array_api_compat.device(values))
    found = values != values
    for _ in range(count):
        left = xp.where(found, xp.full_like(values, -inf), values)
        found = found | (columns == xp.argmax(left, axis=-1, keepdims=True))
    return found
