"""What goes wrong without ending a run: steps that are not finite, samples without an image."""

import json
import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ovseg.errors import DataError, OvsegError
from ovseg.training.batch import Problem

_log = logging.getLogger(__name__)
_MOST_PENDING = 64


@dataclass(frozen=True)
class _Step:
    number: int
    norm: Tensor
    keys: tuple[str, ...]


class DivergedError(OvsegError):
    """Too many steps in a row had a loss or gradient that is not finite."""


class Faults:
    """Counts them, writes them down, and ends the run when they do not stop.

    Args:
        folder: of the run; `skipped.jsonl` and `unreadable.jsonl` are written there.
        most_skipped, most_unreadable: in a row; one more is an error.
    """

    def __init__(self, folder: Path, rank: int, most_skipped: int, most_unreadable: int) -> None:
        suffix = f".{rank}" if rank else ""
        self.skipped_file = folder / f"skipped{suffix}.jsonl"
        self.unreadable_file = folder / f"unreadable{suffix}.jsonl"
        self.most_skipped = most_skipped
        self.most_unreadable = most_unreadable
        self.skipped = 0
        self.skipped_in_a_row = 0
        self.unreadable: Counter[str] = Counter()
        self.unreadable_in_a_row = 0
        self._pending: list[_Step] = []

    def read(self, parts: list[Any]) -> None:
        """Note what could not be read.

        Raises:
            DataError: a shard is gone, or too many samples in a row were unreadable.
        """
        for part in parts:
            bad = {problem.key: problem for problem in part.problems}
            for problem in part.problems:
                self._note(problem)
            for key in part.keys:
                self.unreadable_in_a_row = self.unreadable_in_a_row + 1 if key in bad else 0
                if self.unreadable_in_a_row >= self.most_unreadable:
                    raise DataError(
                        f"{self.unreadable_in_a_row} samples in a row could not be read, the last "
                        f"one {key} ({bad[key].reason}); {self.unreadable_file} lists them"
                    )

    def _note(self, problem: Problem) -> None:
        if problem.fatal:
            raise DataError(f"{problem.reason}: put the shard back and go on with --resume auto")
        self.unreadable[problem.reason] += 1
        _append(self.unreadable_file, {"key": problem.key, "reason": problem.reason})

    def stepped(self, number: int, norm: Tensor, parts: list[Any]) -> None:
        """Note a step's gradient norm, still on the device."""
        keys = tuple(key for part in parts for key in part.keys)
        self._pending.append(_Step(number, norm, keys))
        if len(self._pending) >= min(self.most_skipped, _MOST_PENDING):
            self.settle()

    def settle(self) -> None:
        """Look at the norms noted since the last time; the one place that waits for them.

        Raises:
            DivergedError: too many in a row were not finite.
        """
        if not self._pending:
            return
        norms = torch.stack([step.norm for step in self._pending]).tolist()
        pending, self._pending = self._pending, []
        for step, norm in zip(pending, norms, strict=True):
            if norm - norm == 0:  # neither infinite nor NaN
                self.skipped_in_a_row = 0
                continue
            self.skipped += 1
            self.skipped_in_a_row += 1
            _append(self.skipped_file, {"step": step.number, "keys": list(step.keys)})
        if self.skipped_in_a_row >= self.most_skipped:
            raise DivergedError(
                f"{self.skipped_in_a_row} steps in a row had a loss or gradient not finite; "
                f"{self.skipped_file} lists their pairs: lower schedule.learning_rate, or set "
                "train.precision=fp32"
            )

    def summarise(self) -> None:
        """Warn of what was left out."""
        if self.skipped:
            _log.warning(
                "%d steps were not finite and skipped: %s", self.skipped, self.skipped_file
            )
        for reason, count in self.unreadable.most_common(5):
            _log.warning("%d samples could not be read: %s", count, reason)


def _append(path: Path, values: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(values) + "\n")
