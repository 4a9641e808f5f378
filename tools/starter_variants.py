"""The starter with one thing changed, as rows of docs/starter.md have it.

`python tools/measure_starter.py --data COCO --variant NAME` measures one of them.
"""

from dataclasses import replace

from torch import Tensor

from ovseg.models.interface import GroupedImage
from ovseg.models.starter.model import StarterModel
from ovseg.models.starter.reader import ReadingRule
from ovseg.models.starter.words import WordTable

_LEAST_DOUBT = 1e-6

VARIANTS: dict[str, dict[str, float]] = {
    "no-mixing": {"sharpness": 1e3, "apartness": 0.0},
    "sharpness-6": {"sharpness": 6.0},
    "sharpness-8": {"sharpness": 8.0},
    "around-as-things": {"around_sharpness": 6.5, "around_middle": 0.0},
    "rounds-4": {"rounds": 4},
    "rounds-7": {"rounds": 7},
    "apartness-3": {"apartness": 3.0},
    "apartness-8": {"apartness": 8.0},
    "keys-16": {"keys": 16},
    "keys-22": {"keys": 22},
    "keys-28": {"keys": 28},
    "no-evidence": {"contrast": 0.0},
    "contrast-3": {"contrast": 3.0},
    "no-salience": {"floor": 1.0, "apartness": 0.0},
    "steepness-1.25": {"steepness": 1.25},
    "steepness-1.75": {"steepness": 1.75},
    "one-scale": {"coarse_share": 0.0},
    "coarse-0.3": {"coarse_share": 0.3},
    "coarse-0.5": {"coarse_share": 0.5},
    "unsharpened": {"sharpening": 0.0},
    "sharpened-1": {"sharpening": 1.0},
    "no-surroundings": {"usual": 0.0},
    "threshold-0.4": {"threshold": 0.4},
    "threshold-0.6": {"threshold": 0.6},
    "odds": {"odds": 1},
    "even-trust": {"trust": 0.6},
}
"""Rows of docs/starter.md: what is changed of the `ReadingRule`, or of the model: `threshold`,
`odds`, p / (1 - p), in the place of scores p, or how far captions are trusted about all words."""


def variant(name: str) -> StarterModel:
    """The starter in torch with one thing changed."""
    changes = dict(VARIANTS[name])
    threshold, odds = changes.pop("threshold", None), changes.pop("odds", 0)
    trust = changes.pop("trust", None)
    kind = OddsModel if odds else StarterModel
    model = kind(replace(ReadingRule(), **changes))  # type: ignore[arg-type]
    if threshold is not None:
        model.threshold = threshold
    if trust is not None:
        model.words = EvenlyTrusted(trust)
    model.card = replace(model.card, content_hash="")  # so that no cache takes it for the shipped
    return model


class EvenlyTrusted(WordTable):
    """The starter's words, about all of which captions are believed alike.

    Args:
        share: how far.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self._share = share

    def trust(self, word: str | None) -> float:
        """The same of every word."""
        del word
        return self._share


class OddsModel(StarterModel):
    """The starter with odds in the place of probabilities, which are not bounded."""

    def score(
        self, grouped: GroupedImage, class_embeddings: Tensor, threshold: float | None
    ) -> Tensor:
        """As `StarterModel.score`; without a background its column stays -inf."""
        scores = super().score(grouped, class_embeddings, threshold)
        return scores.where(scores.isinf(), scores / (1 - scores).clamp_min(_LEAST_DOUBT))
