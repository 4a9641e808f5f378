"""Matching against a naive search, and the rules at the edges of words."""

import random
import re

import polars as pl
import pytest

from ovseg.data.build.matching import Matcher
from ovseg.data.dataset.entities import EntityList, entity, load_entities
from ovseg.data.dataset.forms import fold, surface_forms


def _found(matcher: Matcher, *captions: str) -> list[list[str]]:
    matches = matcher.match(pl.Series(captions, dtype=pl.String))
    found: list[list[str]] = [[] for _ in captions]
    for row, start, end in zip(matches.row, matches.start, matches.end, strict=True):
        found[row].append(captions[row][start:end])
    return found


@pytest.fixture(scope="module")
def paper() -> Matcher:
    return Matcher(load_entities("paper100"))


@pytest.mark.parametrize(
    ("caption", "forms"),
    [
        ("two buses, a sofa's leg, glass and skis", ["buses", "sofa", "glass", "skis"]),
        ("A busy BUS", ["BUS"]),
        ("T-Shirts, a t shirt and a t\u2011shirt", ["T-Shirts", "t shirt", "t\u2011shirt"]),
        ("tie-dye shirt", ["shirt"]),
        ("a tow-truck", ["truck"]),
        ("five o'clock by the clock", ["clock"]),
        ("the dog's ball and the dogs’ ball", ["dog", "ball", "dogs", "ball"]),
        ("'cat' “dog” (bird)", ["cat", "dog", "bird"]),
        ("café dog", ["dog"]),
        ("éléphantcat cat\u0301", []),
        ("İ ẞ DOG", ["DOG"]),
        ("👩‍👩‍👧 dog", ["dog"]),
        ("catcat concat cats", ["cats"]),
        ("mice and knives and sheep", ["mice", "knives", "sheep"]),
        ("", []),
    ],
)
def test_words(paper: Matcher, caption: str, forms: list[str]) -> None:
    assert _found(paper, "a dog", caption, "a cat") == [["dog"], forms, ["cat"]]


def test_the_longest_form_wins_and_its_parts_do_not_count() -> None:
    names = ["car", "car seat", "seat belt", "belt"]
    matcher = Matcher(EntityList(tuple(entity(name) for name in names)))
    assert _found(matcher, "a car seat belt", "oscar seat belt") == [
        ["car seat", "belt"],
        ["seat belt"],
    ]


def test_no_captions() -> None:
    assert len(Matcher(load_entities("paper100")).match(pl.Series([], dtype=pl.String))) == 0


def test_random_texts_against_a_naive_search() -> None:
    words = ["ab", "abc", "b", "c a", "a-b", "ä", "äb"]
    matcher = Matcher(EntityList(tuple(entity(word) for word in words)))
    forms = sorted(matcher.forms, key=len, reverse=True)
    chance = random.Random(0)
    captions = ["".join(chance.choices("abcä- 's’A", k=12)) for _ in range(3000)]
    for caption, found in zip(captions, _found(matcher, *captions), strict=True):
        assert found == _naive(caption, forms), caption


def _naive(caption: str, forms: list[str]) -> list[str]:
    alternatives = "|".join(map(re.escape, forms))
    pattern = (
        rf"(?<![^\W_])(?<![^\W_]')(?:{alternatives})"
        r"(?![^\W_])(?!-[^\W_])(?!'(?!s(?![^\W_]))[^\W_])"
    )
    return [caption[m.start() : m.end()] for m in re.finditer(pattern, fold(caption))]


def test_forms() -> None:
    assert surface_forms("T-shirt") == (
        *("t shirt", "t shirts", "t-shirt", "t-shirts", "tshirt", "tshirts"),
    )
    assert surface_forms("person") == ("people", "person", "persons")
    assert set(surface_forms("Café")) == {"café", "cafés", "cafe\u0301", "cafe\u0301s"}
    assert len(fold("İstanbul – ’")) == len("İstanbul – ’")
