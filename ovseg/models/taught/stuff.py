"""Taught classes that are background: they win over what is asked for, unless asked for themselves.

Letters: B image, G group or position, C width of the base's embeddings, K taught class, Q phrase, R
class that is background.
"""

from collections.abc import Sequence
from math import inf
from typing import Any

from array_api_compat import device

from ovseg.models.interface import Array, array_namespace
from ovseg.models.taught.scoring import DOUBT, taught_scores


def scores_beside_stuff(
    base: Array,
    odds: Array,
    classes: Array,
    text: float,
    threshold: float,
    stuff: Sequence[int],
    logarithms: bool = False,
    doubt: float = DOUBT,
) -> Array:
    """As `taught_scores`, float [B, G, 1 + Q], with background where stuff is found.

    Classes that are background compete each for itself, as if all were asked for; what those score
    that are not is the background's, where there is one.

    Args:
        base, odds, classes, text, threshold, logarithms, doubt: as `taught_scores` takes them.
        stuff: places of these classes, R of 0..K-1.
    """
    if not stuff:
        return taught_scores(base, odds, classes, text, threshold, logarithms, doubt)
    xp: Any = array_namespace(base)
    own, taught = classes.shape[-1] - odds.shape[-1], odds.shape[-1]
    here = {"dtype": classes.dtype, "device": device(classes)}
    places = xp.arange(taught, device=device(classes))
    rows = xp.stack([xp.astype(places == place, classes.dtype) for place in stuff])  # [R, K]
    asked = xp.sum(classes[..., own:] @ rows.T, axis=0) > 0  # [R]
    rows = xp.where(asked[:, None], xp.zeros_like(rows), rows)  # each counts once
    wordless = xp.concat([xp.zeros((len(stuff), own), **here), rows], axis=-1)
    nothing = xp.zeros_like(base[..., :1]) - (inf if logarithms else 0.0)
    scores = taught_scores(
        xp.concat([base, *[nothing] * len(stuff)], axis=-1),
        odds,
        xp.concat([classes, wordless], axis=0),
        text,
        threshold,
        logarithms,
        doubt,
    )
    background, others = scores[..., :1], scores[..., -len(stuff) :]
    found = xp.max(xp.where(asked, xp.zeros_like(others) - inf, others), axis=-1, keepdims=True)
    background = xp.where(background > -inf, xp.maximum(background, found), background)
    return xp.concat([background, scores[..., 1 : -len(stuff)]], axis=-1)
