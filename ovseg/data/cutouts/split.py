"""Dividing cut-outs between training and test so that no drawing is in both."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ovseg.data.cutouts import duplicates
from ovseg.data.cutouts.library import CutOut

TRAIN, TEST = "train", "test"


@dataclass(frozen=True)
class Split:
    """Who is where.

    Attributes:
        groups: number of each cut-out's group of duplicates.
        sides: "train" or "test" for each cut-out.
    """

    groups: tuple[int, ...]
    sides: tuple[str, ...]

    def numbers(self, side: str) -> list[int]:
        """Numbers of the cut-outs on one side."""
        return [number for number, where in enumerate(self.sides) if where == side]


def split_cutouts(cutouts: Sequence[CutOut], share: float, seed: int) -> Split:
    """Put about `share` of every entity's drawings into the test set.

    An entity with two drawings or more gets at least one on each side, where duplicates under
    another name do not prevent it; an entity with a single drawing is for training only.
    """
    groups = _groups(cutouts)
    of_name: dict[str, list[int]] = {}
    for cutout, group in zip(cutouts, groups, strict=True):
        members = of_name.setdefault(cutout.name, [])
        if group not in members:
            members.append(group)
    rng = np.random.default_rng([seed, 1])
    side_of: dict[int, str] = {}
    for name in sorted(of_name):
        members = of_name[name]
        order = [members[index] for index in rng.permutation(len(members))]
        _assign(order, share, side_of)
    return Split(tuple(groups), tuple(side_of[group] for group in groups))


def _assign(groups: Sequence[int], share: float, side_of: dict[int, str]) -> None:
    wanted = max(1, round(share * len(groups))) if share > 0 and len(groups) > 1 else 0
    wanted -= sum(side_of.get(group) == TEST for group in groups)
    free = [group for group in groups if group not in side_of]
    keeps_one = any(side_of.get(group) == TRAIN for group in groups)
    for number, group in enumerate(free):
        last_for_training = number == len(free) - 1 and not keeps_one
        side_of[group] = TEST if number < wanted and not last_for_training else TRAIN


def _groups(cutouts: Sequence[CutOut]) -> list[int]:
    """Groups by likeness, joined with those of the same path in another format."""
    raw = [np.frombuffer(bytes.fromhex(cutout.signature), np.uint8) for cutout in cutouts]
    alike = duplicates.group(np.stack(raw)) if raw else []
    paths: dict[str, int] = {}
    same_path = [
        paths.setdefault(cutout.source.rpartition(".")[0], number)
        for number, cutout in enumerate(cutouts)
    ]
    return duplicates.join(alike, same_path)


def split_backgrounds(count: int, share: float, seed: int) -> tuple[list[int], list[int]]:
    """Numbers of the photographs for training and for test; a single one serves both."""
    order = [int(number) for number in np.random.default_rng([seed, 2]).permutation(count)]
    held_out = max(1, round(share * count)) if share > 0 and count > 1 else 0
    train, test = sorted(order[held_out:]), sorted(order[:held_out])
    return train, test or train
