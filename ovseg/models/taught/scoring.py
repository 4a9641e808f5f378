"""How strongly positions show taught classes, and the words beside them.

Like `ovseg.models.scoring`, for torch, NumPy and graphs alike.

Letters: B image, G group, K taught class, Q phrase, C embedding width of the base.
"""

from math import log

from ovseg.models.interface import Array, array_namespace

MOST_TOLD = 5.0
"""How far, as a logarithm, words alone may change what was taught."""
DOUBT = 1.0
"""The power of how much likelier masks make taught classes by which other words are doubted, where
it was not fitted."""
MOST_LIKELY = 50.0
"""How much likelier, as a logarithm, counts at most; no more fits into float32."""
LEAST_THRESHOLD = 1e-6
"""What a taught class is compared with where a model has no threshold; as far below 1 at most."""


def taught_scores(
    base: Array,
    odds: Array,
    classes: Array,
    text: float,
    threshold: float,
    logarithms: bool = False,
    doubt: float = DOUBT,
) -> Array:
    """Scores of a model with taught classes, float [B, G, 1 + Q].

    A phrase that names none of them keeps the base's score. Where masks make a taught class that is
    asked for likelier than none, and its own words do not take that back, the odds of that score
    are divided by a power of how much likelier, unless scores are logarithms. Where the word of a
    taught class had a better one, it does not take over what masks say is not of that class. So it
    finds nothing that it did not find before.

    A phrase that names a taught class is compared with the background at the model's own threshold:
    it goes from there towards 1 as far as it is likelier than all that is not asked for, or towards
    0. What words alone say counts as odds do, where the base knows them. Likelihoods, unlike odds,
    can be interpolated between positions.

    Args:
        base: the base's scores of background and phrases, float [B, G, 1 + Q].
        odds: logarithms of how much likelier each class is than none of them, float [B, G, K].
        classes: class embeddings of the base, zeros for words that it does not know, and behind
            them 1 for the taught class that a phrase names, float [Q, C + K].
        text: the power.
        threshold: the model's own.
        logarithms: whether the base's scores are such, as `dense_clip_scores` has them.
        doubt: the power for phrases that name none.
    """
    xp = array_namespace(base)
    words, width = base[..., 1:], classes.shape[-1] - odds.shape[-1]
    named = classes[..., width:]
    of_taught = xp.sum(named, axis=-1) > 0  # [Q]
    known = xp.astype(xp.sum(xp.abs(classes[..., :width]), axis=-1) > 0, base.dtype)
    text_says = text * known * margins(words, threshold, logarithms)  # [B, G, Q]
    if logarithms:
        scores = _bar(words, threshold) + odds @ named.T + text_says
    else:
        asked = xp.sum(named, axis=0)  # [K]
        text_says = (text_says @ named) / xp.clip(asked, min=1)  # [B, G, K]
        told = odds + xp.clip(text_says, max=0)
        told = xp.where(asked > 0, told, xp.zeros_like(told))
        base_says = xp.max(words * xp.astype(of_taught, base.dtype), axis=-1, keepdims=True)
        words = xp.minimum(
            _lowered(words, doubt * xp.max(told, axis=-1, keepdims=True)),
            _outbid(words, base_says, threshold),
        )
        odds = odds + text_says
        most = xp.clip(xp.max(odds, axis=-1, keepdims=True), min=0)
        each, none = xp.exp(odds - most), xp.exp(-most)  # [B, G, K], [B, G, 1]
        total = none + xp.sum(each, axis=-1, keepdims=True)
        rest = none + xp.sum(each * xp.astype(asked == 0, base.dtype), axis=-1, keepdims=True)
        above = (each @ named.T - rest) / total
        scores = threshold + above * xp.where(above > 0, 1 - threshold, threshold)
    return xp.concat([base[..., :1], xp.where(of_taught, scores, words)], axis=-1)


def _lowered(words: Array, less: Array) -> Array:
    """Scores, 0..1, with less odds, as logarithms; to the bit as they were where `less` is 0."""
    xp = array_namespace(words)
    divided = words / (words + xp.clip(1 - words, min=0) * xp.exp(xp.clip(less, max=MOST_LIKELY)))
    return xp.where((less > 0) & (words > 0), divided, words)


def _outbid(words: Array, most: Array, threshold: float) -> Array:
    """Scores, 0..1, brought below the threshold where they are below a score that exceeds it."""
    xp = array_namespace(words)
    below = words * (threshold / xp.clip(most, min=max(threshold, LEAST_THRESHOLD)))
    return xp.where(words < most, below, words)


def margins(words: Array, threshold: float, logarithms: bool = False) -> Array:
    """How much more the odds of phrases are than a threshold's, as logarithms, float [B, G, Q]."""
    xp = array_namespace(words)
    if logarithms:
        odds = words - _bar(words, threshold)
    else:
        shares = xp.clip(words, min=LEAST_THRESHOLD, max=1 - LEAST_THRESHOLD)
        bar = min(max(threshold, LEAST_THRESHOLD), 1 - LEAST_THRESHOLD)
        odds = xp.log(shares / (1 - shares)) - log(bar / (1 - bar))
    return xp.clip(odds, min=-MOST_TOLD, max=MOST_TOLD)


def _bar(words: Array, threshold: float) -> Array:
    """The logit that has a probability among those of phrases, [B, G, 1] of [B, G, Q]."""
    xp = array_namespace(words)
    most = xp.max(words, axis=-1, keepdims=True)
    total = xp.sum(xp.exp(words - most), axis=-1, keepdims=True)
    return xp.log(total) + most + log(max(threshold, LEAST_THRESHOLD))
