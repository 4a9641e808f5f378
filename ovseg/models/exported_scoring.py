"""How exported models score groups against classes, in NumPy.

The rules are those of the models themselves: the starter's own, which knows both kinds of arrays,
and those of `ovseg.models.scoring` and `DenseClip.score`, which need torch.

Letters: B image, G group, K class, C embedding width.
"""

from collections.abc import Callable
from math import log

import numpy as np
import numpy.typing as npt

from ovseg.models.export_description import Kind
from ovseg.models.interface import GroupedImage
from ovseg.models.starter.scoring import starter_scores

Floats = npt.NDArray[np.floating]
LIKELY_CLASSES = 5


def score_starter(
    grouped: GroupedImage, classes: Floats, scale: float, threshold: float | None
) -> Floats:
    """Probabilities of the classes, lowered by their number, behind a constant background."""
    del scale
    scores: Floats = starter_scores(grouped.embedding, classes, threshold)
    return scores


def score_ovsegmentor(
    grouped: GroupedImage, classes: Floats, scale: float, threshold: float | None
) -> Floats:
    """`P5 * P`, and a background where the best class of a group stays behind."""
    groups, images = _unit(grouped.embedding), _unit(np.asarray(grouped.image_embedding))
    classes = _unit(classes)
    similarity = scale * (groups @ classes.T)  # [B, G, K]
    among = np.where(_likely(images @ classes.T)[:, None], similarity, -np.inf)
    scores = _softmax(among) * _softmax(similarity)
    best = scores.max(axis=-1, keepdims=True)  # [B, G, 1]
    if threshold is None:
        return _behind(np.full_like(best, -np.inf), scores)
    limit = np.minimum(best.max(axis=1, keepdims=True), np.float32(threshold))
    return _behind((best < limit).astype(scores.dtype), scores)


def score_dense_clip(
    grouped: GroupedImage, classes: Floats, scale: float, threshold: float | None
) -> Floats:
    """Scaled cosines behind what a class must exceed for its probability to reach the threshold."""
    scores = (scale * (grouped.embedding @ classes.T)).astype(grouped.embedding.dtype)
    bar = np.full_like(scores[..., :1], -np.inf)
    if threshold is not None and threshold > 0:
        most = scores.max(axis=-1, keepdims=True)
        total = np.exp(scores - most).sum(axis=-1, keepdims=True)
        bar = (np.log(total) + most + log(threshold)).astype(scores.dtype)
    return _behind(bar, scores)


RULES: dict[Kind, Callable[[GroupedImage, Floats, float, float | None], Floats]] = {
    "starter": score_starter,
    "ovsegmentor": score_ovsegmentor,
    "dense-clip": score_dense_clip,
}
"""The rule of each family: grouped image, classes [K, C], scale, threshold -> [B, G, 1 + K]."""


def _behind(background: Floats, scores: Floats) -> Floats:
    return np.concatenate([background, scores], axis=-1)


def _unit(x: Floats) -> Floats:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), np.float32(1e-12))


def _softmax(x: Floats) -> Floats:
    weights = np.exp(x - x.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def _likely(similarity: Floats) -> npt.NDArray[np.bool_]:
    """The classes an image is most like, bool [B, K]; all if there are few."""
    count = min(LIKELY_CLASSES, similarity.shape[1])
    chosen = np.argsort(-similarity, axis=1, kind="stable")[:, :count]
    likely = np.zeros(similarity.shape, dtype=bool)
    np.put_along_axis(likely, chosen, True, axis=1)
    return likely
