"""How positions are scored against words, on torch tensors and NumPy arrays alike.

Letters: B image, P position, Q phrase, C class of the classifier or kind of surroundings.
"""

from math import inf

from ovseg.models.interface import Array, array_namespace

CAUTION = 0.3
"""The power of the number of phrases by which their scores fall."""
LEAST_SHARE = 0.02
"""What a score must have of the phrase's best in the image to count at all."""


def starter_scores(probabilities: Array, words: Array, threshold: float | None) -> Array:
    """Scores of background and of each phrase, float [B, P, 1 + Q].

    Args:
        probabilities: of every class at every position, float [B, P, C].
        words: share of every class in every phrase, float [Q, C]; zeros where there is none.
        threshold: the score of the background, the same everywhere; None for no background.
    """
    xp = array_namespace(probabilities)
    phrases = phrase_scores(probabilities, words)
    background = xp.full_like(phrases[..., :1], -inf if threshold is None else threshold)
    if threshold is not None:
        phrases = near_the_best(phrases)
    return xp.concat([background, phrases], axis=-1)


def phrase_scores(probabilities: Array, words: Array) -> Array:
    """Score of each phrase at every position, float [B, P, Q].

    It is the probability that the phrase, or something that it is grounded in, is there, lowered by
    the number of phrases that are grounded at all: each is one more chance to be wrong, and of two
    words that are asked for, each is more likely to be in the image than of eighty.
    """
    xp = array_namespace(probabilities)
    grounded = xp.sum(xp.astype(xp.sum(words, axis=-1) > 0, words.dtype))
    return (probabilities @ words.T) * xp.clip(grounded, min=1) ** -CAUTION


def near_the_best(phrases: Array) -> Array:
    """Scores [B, P, Q], and 0 where a phrase has too little of what it has at its best position.

    What merely surrounds an object that was found for certain is so left to the background.
    """
    xp = array_namespace(phrases)
    best = xp.max(phrases, axis=1, keepdims=True)
    return xp.where(phrases < LEAST_SHARE * best, xp.zeros_like(phrases), phrases)
