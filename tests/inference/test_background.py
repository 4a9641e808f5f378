"""The rules of the background: each family's own, and those that take its place."""

from dataclasses import replace

import numpy as np
import pytest

from ovseg.data.class_list import ClassList
from ovseg.errors import UsageError
from ovseg.evaluation.evaluate import protocol_changes
from ovseg.inference.background import RULES, without_asked
from ovseg.inference.protocol import Protocol, own
from ovseg.inference.segmenter import Segmenter
from ovseg.models.background_words import STUFF_WORDS
from ovseg.models.interface import DenseReading
from tests.inference.fakes import COLOURS, ColourModel

CLASSES = ClassList.parse("red,blue")


class Dense(ColourModel):
    """Read as dense models are, with words and a threshold."""

    reading = DenseReading(10.0, background=("green", "red"))
    threshold = 0.1


class Constant(ColourModel):
    reading = DenseReading(3.0, rule="constant", bias=-1.0)
    threshold = 0.6


def settled(model: ColourModel, **changes: object) -> Protocol:
    return own(**changes).for_model(model, classes=CLASSES)


def values(protocol: Protocol) -> tuple[object, ...]:
    return (
        protocol.rule, protocol.scale, protocol.bias, protocol.threshold, protocol.background_words
    )  # fmt: skip


def test_every_family_has_its_own() -> None:
    assert values(settled(ColourModel())) == ("model", 1.0, 0.0, 0.5, ())
    assert values(settled(Dense())) == ("probability", 10.0, 0.0, 0.1, ("green",))
    assert values(settled(Constant())) == ("constant", 3.0, -1.0, 0.6, ())


def test_rules_that_are_asked_for_have_their_own_values() -> None:
    for model in (ColourModel(), Constant()):
        found = settled(model, background_rule="words")
        assert values(found) == ("probability", 40.0, 0.0, 0.0, STUFF_WORDS)
        assert settled(model, background_rule="probability").threshold == 0.5
    assert values(settled(Dense(), background_rule="words"))[1:] == (10.0, 0.0, 0.0, ("green",))
    assert values(settled(Dense(), background_rule="probability"))[3:] == (0.5, ())
    assert values(settled(Dense(), background_rule="constant")) == ("constant", 10.0, -2.5, 0.4, ())
    assert settled(Constant(), background_rule="constant").scale == 3.0


@pytest.mark.parametrize("model", [ColourModel(), Dense(), Constant()])
@pytest.mark.parametrize("rule", RULES)
def test_everything_can_be_overridden(model: ColourModel, rule: str) -> None:
    found = settled(model, background_rule=rule, threshold=0.3, background_words="green,red;rose")
    assert (found.threshold, found.background_words) == (0.3, ("green", "rose"))
    again = found.for_model(model, classes=CLASSES)
    assert again == found, "filled in twice, it is the same"


def test_words_beside_a_rule_that_takes_none_mean_that_rule() -> None:
    found = settled(ColourModel(), background_words=("green",))
    assert (found.rule, found.background_rule, found.threshold) == ("probability", "words", 0.0)
    assert settled(ColourModel(), background_words=("green",), background=False).rule == "model"


def test_a_threshold_alone_leaves_the_rule() -> None:
    assert values(settled(Dense(), threshold=0.7)) == ("probability", 10.0, 0.0, 0.7, ("green",))


def test_unknown_rules_are_refused() -> None:
    with pytest.raises(UsageError, match="choose probability, constant, words"):
        own(background_rule="loudest")
    with pytest.raises(UsageError, match="choose probability, constant, words"):
        protocol_changes(background_rule="loudest")


def test_a_rule_takes_the_place_of_a_published_one() -> None:
    changes = protocol_changes(background_rule="probability")
    assert changes == {"background_rule": "probability", "background_words": (), "threshold": None}
    published = Protocol(
        "mine", "probability", scale=65.0, threshold=0.1, background_words=("sky",)
    )

    found = replace(published, **changes).for_model(Dense(), classes=CLASSES)
    assert values(found) == ("probability", 65.0, 0.0, 0.5, ())


def test_labels_follow_the_rule() -> None:
    """Left a red, in the middle a green and right a grey third; red is asked for."""
    image = np.zeros((12, 36, 3), np.uint8)
    image[:, :12, 0] = image[:, 12:24, 1] = 200
    image[:, 24:] = 120
    segmenter = Segmenter(ColourModel())

    def thirds(**options: object) -> list[int]:
        labels = segmenter.segment(image, "red,blue", short_side=12, **options).labels
        return [int(labels[6, column]) for column in (4, 18, 30)]

    assert set(COLOURS) == {"red", "green", "blue"}
    assert thirds(background_rule="words", background_words="green") == [1, 0, 0]
    assert thirds(background_rule="probability", threshold=0.9) == [1, 0, 0]
    assert thirds(background_rule="probability", threshold=0.4) == [1, 1, 1]
    assert thirds(background_rule="constant", threshold=0.99) == [1, 0, 0]
    assert thirds(background_rule="constant", threshold=0.9, background_words="green")[1] == 0
    assert thirds(background_rule="words", background=False) == [1, 1, 1]


def test_words_that_a_phrase_contains_are_asked_for() -> None:
    words = ("sky", "grass", "tree", "road")
    found = without_asked(words, ClassList.parse("green grass,tall trees,Sky"))
    assert found == ("road",)
