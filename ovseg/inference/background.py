"""Where pixels belong to none of the classes: the one place that says by which rule.

| rule | a pixel is background where |
|---|---|
| `probability` | the best class has less than the threshold of a softmax over all phrases |
| `constant` | no class's sigmoid of scale * cosine + bias exceeds the threshold |
| `words` | a phrase that stands for the background, such as `sky`, is the most likely one |

Each family of models has its own, under which its scores were published: the starter and models of
groups a threshold within their own scores (`SegmentationModel.score`), dense CLIP words and a
probability at once, others what their `DenseReading` says. A rule, words or a threshold that is
asked for takes their place.
"""

from collections.abc import Sequence
from typing import Any, Literal, get_args

from ovseg.data.class_list import ClassList
from ovseg.errors import UsageError
from ovseg.models.background_words import STUFF_WORDS
from ovseg.models.interface import DenseReading, SegmentationModel

BackgroundRule = Literal["", "probability", "constant", "words"]
"""Empty stands for the protocol's or the model's own."""

RULES: tuple[str, ...] = get_args(BackgroundRule)[1:]

Fields = dict[str, Any]
"""Values of a protocol by name: `rule`, `scale`, `bias`, `threshold`, `background_words`."""

_TCL: Fields = {"rule": "constant", "scale": 10.0, "bias": -2.5, "threshold": 0.4}
_SCLIP_SCALE = 40.0
_LIKELY = 0.5


def check_rule(rule: str) -> None:
    """Raise UsageError unless there is such a rule, or none is asked for."""
    if rule and rule not in RULES:
        raise UsageError(f"unknown background rule '{rule}': choose {', '.join(RULES)}")


def asked_for(wanted: Fields) -> Fields:
    """A user's changes to a protocol, and with a rule what must not stay of another one's.

    Words alone mean the rule `words` where the model has a rule that takes none
    (`background_fields`).
    """
    if not wanted.get("background_rule"):
        return wanted
    return {"background_words": (), "threshold": None, **wanted}


def own_fields(model: SegmentationModel) -> Fields:
    """The background of a model that is read as its `DenseReading` says; empty for other models."""
    reading: DenseReading | None = getattr(model, "reading", None)
    if reading is None:
        return {}
    return {
        "rule": reading.rule,
        "scale": reading.scale,
        "bias": reading.bias,
        "threshold": model.threshold,
        "background_words": reading.background if reading.rule == "probability" else (),
    }


def fields_of(rule: str, model: SegmentationModel) -> Fields:
    """The background by a rule that is asked for: the model's own constants where it has some.

    Otherwise a softmax has SCLIP's scale, and a sigmoid TCL's scale, bias and threshold.
    """
    check_rule(rule)
    own = own_fields(model)
    same = own.get("rule") == ("constant" if rule == "constant" else "probability")
    if rule == "constant":
        return {**(own if same else _TCL), "background_words": ()}
    found = {"rule": "probability", "scale": own["scale"] if same else _SCLIP_SCALE, "bias": 0.0}
    if rule == "words":
        words = own.get("background_words") or STUFF_WORDS
        return {**found, "threshold": 0.0, "background_words": words}
    return {**found, "threshold": _LIKELY, "background_words": ()}


def without_asked(words: Sequence[str], classes: ClassList) -> tuple[str, ...]:
    """Words of the background, without those that are asked for: `grass` is in `green grass`, too.

    A phrase would otherwise lose to the bare word that it contains, in singular or plural.
    """
    asked = {phrase.casefold() for phrase in classes.phrases}
    asked |= {word for phrase in asked for word in phrase.split()}
    asked |= {word.removesuffix("s") for word in asked}
    return tuple(word for word in words if word.casefold() not in asked)
