"""Saying what a scene shows: "A red car to the left of two dogs."

Only what can be seen is said: colours are measured on the visible pixels, counts and positions on
the masks. Positions are the viewer's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ovseg.data.cutouts.naming import NameTable
from ovseg.data.cutouts.scene import Scene

COLOURS = (
    "black", "white", "gray", "red", "orange", "brown",
    "yellow", "green", "blue", "purple", "pink",
)  # fmt: skip
_BLACK, _WHITE, _GRAY, _RED, _ORANGE, _BROWN, _YELLOW, _GREEN, _BLUE, _PURPLE, _PINK = range(11)
_MAIN, _BOTH, _SECOND = 0.55, 0.8, 0.25  # shares of an object's pixels
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# How a sentence ends that has said where; a second "on a green background" would stumble.
_PLACES = ("left", "right", "corner", "top", "bottom", "middle")
_APART = 0.08  # gap between centres, as a share of the scene, from which "left of" is said
_SMALL, _LARGE = 0.025, 0.17  # share of the scene


@dataclass(frozen=True)
class Subject:
    """All objects of one name in a scene.

    Attributes:
        name: the entity.
        numbers: of the instances.
        several: whether one cut-out shows several of them.
        colour: what colour they share, or "".
        size: "small", "large" or "".
        rows, columns: centres of the instances as shares of the scene, 0..1.
        behind: names of subjects that partly hide the only instance.
    """

    name: str
    numbers: tuple[int, ...]
    several: bool
    colour: str
    size: str
    rows: tuple[float, ...]
    columns: tuple[float, ...]
    behind: str | None


def describe(rng: Generator, scene: Scene, table: NameTable) -> str:
    """One sentence for a scene, drawn from the ways to say it."""
    subjects = subjects_of(scene)
    if not subjects:
        return "An empty scene."
    order = [subjects[index] for index in rng.permutation(len(subjects))]
    phrases = [noun_phrase(rng, subject, table) for subject in order]
    if len(order) == 1:
        text = _one(rng, order[0], phrases[0], table)
    elif len(order) == 2:
        text = _two(rng, order, phrases)
    else:
        text = _many(rng, order, phrases)
    if not text.endswith(_PLACES):
        text += _ground(rng, scene)
    return text[0].upper() + text[1:] + "."


def subjects_of(scene: Scene) -> list[Subject]:
    """The objects of a scene by name, in the order of their first instance."""
    members: dict[str, list[int]] = {}
    for number, instance in enumerate(scene.instances):
        members.setdefault(instance.cutout.name, []).append(number)
    return [_subject(scene, name, numbers) for name, numbers in members.items()]


def _subject(scene: Scene, name: str, numbers: list[int]) -> Subject:
    masks = [scene.labels == number for number in numbers]
    colours = {colour_words(scene.image[mask]) for mask in masks}
    centres = [_centre(mask) for mask in masks]
    area = float(np.mean([mask.mean() for mask in masks]))
    first = scene.instances[numbers[0]]
    hider = scene.instances[first.hidden_by].cutout.name if first.hidden_by is not None else None
    return Subject(
        name=name,
        numbers=tuple(numbers),
        several=any(scene.instances[number].cutout.several for number in numbers),
        colour=colours.pop() if len(colours) == 1 else "",
        size="small" if area < _SMALL else "large" if area > _LARGE else "",
        rows=tuple(row for row, _ in centres),
        columns=tuple(column for _, column in centres),
        behind=hider if len(numbers) == 1 and hider != name else None,
    )


def _centre(mask: NDArray[np.bool_]) -> tuple[float, float]:
    rows, columns = np.nonzero(mask)
    return float(rows.mean()) / mask.shape[0], float(columns.mean()) / mask.shape[1]


def noun_phrase(rng: Generator, subject: Subject, table: NameTable) -> str:
    """ "a small red car", "two red cars", "some cherries", "a pair of scissors"."""
    noun, count = subject.name, len(subject.numbers)
    last = noun.rpartition(" ")[2]
    uncounted = last in table.mass or subject.several
    words = []
    if subject.size and not uncounted and rng.random() < 0.3:
        words.append(subject.size)
    # "an orange orange" is no sentence for people, nor is "a blue nurse".
    telling = subject.colour and subject.colour != subject.name and last not in table.colourless
    if telling and rng.random() < 0.75:
        words.append(subject.colour)
    if uncounted:
        plural = noun if last in table.mass else table.plural(noun)
        return " ".join(["some", *words, plural])
    if last in table.plural_only:
        words = ["pair" if count == 1 else "pairs", "of", *words, noun]
    else:
        words.append(noun if count == 1 else table.plural(noun))
    if count > 1:
        return " ".join([_NUMBERS[count], *words])
    leading = "the" if noun in table.unique else article(words[0])
    return f"{leading} {' '.join(words)}"


def article(word: str) -> str:
    """ "a" or "an", by sound."""
    silent_h = word.startswith(("hour", "honest", "heir"))
    yod = word.startswith(("uni", "use", "uku", "eu", "ewe", "one"))
    return "an" if silent_h or (word[0] in "aeiou" and not yod) else "a"


def _one(rng: Generator, subject: Subject, phrase: str, table: NameTable) -> str:
    spot = _where(subject)
    many = len(subject.numbers) > 1 or (subject.several and subject.name not in table.mass)
    plain = [phrase, f"a photo of {phrase}", f"a picture of {phrase}"]
    placed = [f"{phrase} {spot}", f"there {'are' if many else 'is'} {phrase} {spot}"]
    return _pick(rng, [*plain, *placed] if spot else plain)


def _two(rng: Generator, subjects: Sequence[Subject], phrases: Sequence[str]) -> str:
    relations = _relations(*subjects)
    if relations and rng.random() < 0.75:
        return f"{phrases[0]} {_pick(rng, relations)} {phrases[1]}"
    return _pick(
        rng, [f"{phrases[0]} {word} {phrases[1]}" for word in ("and", "with", "next to")[:2]]
    )


def _many(rng: Generator, subjects: Sequence[Subject], phrases: Sequence[str]) -> str:
    relations = _relations(*subjects[:2])
    spot = _where(subjects[2])
    if relations and spot and len(subjects) == 3 and rng.random() < 0.5:
        return f"{phrases[0]} {_pick(rng, relations)} {phrases[1]}, and {phrases[2]} {spot}"
    return f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def _relations(first: Subject, second: Subject) -> list[str]:
    """What may truly stand between the two; "behind" rules out the rest."""
    if first.behind == second.name:
        return ["partly hidden behind", "behind"]
    if second.behind == first.name:
        return ["in front of"]
    found = []
    if max(first.columns) + _APART < min(second.columns):
        found += ["to the left of", "on the left of"]
    if max(second.columns) + _APART < min(first.columns):
        found += ["to the right of", "on the right of"]
    if max(first.rows) + 2 * _APART < min(second.rows):
        found.append("above")
    if max(second.rows) + 2 * _APART < min(first.rows):
        found.append("below")
    return found


def _where(subject: Subject) -> str:
    """ "on the left", "in the top right corner", or "" where it cannot be said."""
    low, high = 0.36, 0.64
    left, right = max(subject.columns) < low, min(subject.columns) > high
    top, bottom = max(subject.rows) < low, min(subject.rows) > high
    side = "left" if left else "right" if right else ""
    level = "top" if top else "bottom" if bottom else ""
    if side and level:
        return f"in the {level} {side} corner" if len(subject.numbers) == 1 else f"on the {side}"
    if side:
        return f"on the {side}"
    if level:
        return f"at the {level}"
    middle = all(low <= value <= high for value in (*subject.rows, *subject.columns))
    return "in the middle" if middle and len(subject.numbers) == 1 else ""


def _ground(rng: Generator, scene: Scene) -> str:
    if rng.random() >= 0.25:
        return ""
    colour = colour_words(scene.image[scene.labels < 0])
    return f" on {article(colour)} {colour} background" if colour else ""


def _pick(rng: Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]


def name_colours(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Index into `COLOURS` of every pixel: uint8 [P, 3] -> uint8 [P].

    Bounds on hue (degrees), saturation and value; brown is dark orange, pink is pale red.
    """
    hsv = cv2.cvtColor(rgb.reshape(-1, 1, 3), cv2.COLOR_RGB2HSV).reshape(-1, 3).astype(np.float32)
    hue, saturation, value = hsv[:, 0] * 2, hsv[:, 1] / 255, hsv[:, 2] / 255
    bounds = np.array([14, 42, 68, 165, 255, 295, 345], np.float32)
    wheel = np.array([_RED, _ORANGE, _YELLOW, _GREEN, _BLUE, _PURPLE, _PINK, _RED], np.uint8)
    named = wheel[np.searchsorted(bounds, hue, side="right")]
    warm = (named == _RED) | (named == _ORANGE)
    named[warm & (value < 0.65) & ((named == _ORANGE) | (saturation < 0.6))] = _BROWN
    named[(named == _ORANGE) & (saturation < 0.55) & (value < 0.85)] = _BROWN
    named[(named == _RED) & (saturation < 0.55) & (value >= 0.75)] = _PINK
    named[(named == _YELLOW) & (value < 0.45)] = _BROWN
    pale = saturation < 0.16
    named[pale] = _GRAY
    named[pale & (value > 0.82)] = _WHITE
    named[(value < 0.22) | (pale & (value < 0.3))] = _BLACK
    return named


def colour_words(rgb: NDArray[np.uint8]) -> str:
    """ "red", "black and white", or "" where no colour or two prevail; uint8 [P, 3]."""
    if not len(rgb):
        return ""
    shares = np.bincount(name_colours(rgb), minlength=len(COLOURS)) / len(rgb)
    first, second = np.argsort(-shares, kind="stable")[:2]
    if shares[first] >= _MAIN:
        return COLOURS[first]
    if shares[first] + shares[second] >= _BOTH and shares[second] >= _SECOND:
        # Said in the order people say them: "black and white", "red and white".
        return " and ".join(COLOURS[index] for index in _spoken_order(int(first), int(second)))
    return ""


def _spoken_order(first: int, second: int) -> tuple[int, int]:
    if {first, second} == {_BLACK, _WHITE}:
        return _BLACK, _WHITE
    return (second, first) if first == _WHITE else (first, second)
