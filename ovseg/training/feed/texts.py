"""Captions with their entities masked, and prompts that name what was masked."""

from collections.abc import Sequence

import numpy as np

from ovseg.data.dataset.pairs import Mention, Pair

PLAIN_PROMPT = "a photo of {}"


def mask_mentions(pair: Pair, mask: str) -> str:
    """The caption with every mention replaced by `mask`."""
    parts, end = [], 0
    for mention in apart(pair.mentions):
        parts += [pair.caption[end : mention.start], mask]
        end = mention.end
    return "".join([*parts, pair.caption[end:]])


def apart(mentions: Sequence[Mention]) -> list[Mention]:
    """Mentions in the order of the text, without those that begin inside another."""
    kept: list[Mention] = []
    for mention in sorted(mentions, key=lambda each: each.start):
        if not kept or mention.start >= kept[-1].end:
            kept.append(mention)
    return kept


def prompt_for(pair: Pair, templates: Sequence[str], choose: np.random.Generator) -> str:
    """`a photo of dog and frisbee`: each masked entity once, in a template drawn at random.

    Templates have a `{}`; an empty pair, which no loss reads, has the plain one without a name.
    """
    names = dict.fromkeys(mention.entity for mention in apart(pair.mentions))
    template = templates[int(choose.integers(len(templates)))] if templates else PLAIN_PROMPT
    return template.format(" and ".join(names))
