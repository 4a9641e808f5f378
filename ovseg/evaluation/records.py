"""What is kept of every image: its counts, sparse, on disk as soon as its chunk is done.

Letters: K class, T threshold of a sweep.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovseg.evaluation.grouping import GroupingCounts
from ovseg.evaluation.overlap import Counts


@dataclass(frozen=True)
class ImageRecord:
    """Counts of one image.

    Attributes:
        name: of the sample.
        confusion: int64 [K, K].
        boundary: common, true and predicted pixels of every class's band, int64 [K, 3].
        grouping: of its regions before they are named.
        sweep: common, true and predicted pixels at every threshold, int64 [T, K, 3]; T may be 0.
    """

    name: str
    confusion: Counts
    boundary: Counts
    grouping: GroupingCounts
    sweep: Counts

    def to_json(self) -> str:
        """One line of JSON, without zeros."""
        values = {
            "name": self.name,
            "confusion": _sparse(self.confusion),
            "boundary": _sparse(self.boundary),
            "oracle": _sparse(self.grouping.oracle),
            "best_match": _sparse(self.grouping.best_match),
            "segments": _sparse(self.grouping.segments),
            "pieces": _sparse(self.grouping.pieces),
            "sweep": _sparse(self.sweep),
        }
        return json.dumps(values, separators=(",", ":"))

    @classmethod
    def from_json(cls, line: str, classes: int, thresholds: int) -> "ImageRecord":
        """Back from `to_json`; ValueError or KeyError if the line is cut off."""
        values = json.loads(line)
        square, vector = (classes, classes), (classes,)
        grouping = GroupingCounts(
            oracle=_dense(values["oracle"], square),
            best_match=_dense(values["best_match"], vector, np.float64),
            segments=_dense(values["segments"], vector),
            pieces=_dense(values["pieces"], vector),
        )
        return cls(
            name=str(values["name"]),
            confusion=_dense(values["confusion"], square),
            boundary=_dense(values["boundary"], (classes, 3)),
            grouping=grouping,
            sweep=_dense(values["sweep"], (thresholds, classes, 3)),
        )


def _sparse(values: NDArray[Any]) -> list[Any]:
    """Indices into the flat array and the values there, of what is not zero."""
    where = np.flatnonzero(values)
    return [where.tolist(), values.reshape(-1)[where].tolist()]


def _dense(pair: Any, shape: tuple[int, ...], dtype: Any = np.int64) -> NDArray[Any]:
    values = np.zeros(shape, dtype)
    values.reshape(-1)[np.array(pair[0], np.int64)] = pair[1]
    return values


class RecordStore:
    """Records of an unfinished run, in a folder named by everything that can change them.

    Every process appends to a file of its own, and reads all of them when it starts.
    """

    def __init__(self, folder: Path, rank: int) -> None:
        self.folder = folder
        self._path = folder / f"records-{rank}.jsonl"

    def load(self, classes: int, thresholds: int) -> dict[str, ImageRecord]:
        """Records by name. A line that was cut off when the run died is passed over."""
        found: dict[str, ImageRecord] = {}
        for path in sorted(self.folder.glob("records-*.jsonl")):
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    record = ImageRecord.from_json(line, classes, thresholds)
                except (LookupError, TypeError, ValueError, ArithmeticError, RecursionError):
                    continue  # will be computed again
                found[record.name] = record
        return found

    def append(self, records: Iterable[ImageRecord]) -> None:
        """Write a chunk's records; when this returns they are on disk."""
        self.folder.mkdir(parents=True, exist_ok=True)
        text = "".join(record.to_json() + "\n" for record in records)
        # A line that was cut off may lack its end: begin on a new one.
        with self._path.open("ab") as stream:
            stream.write(b"\n" + text.encode() if stream.tell() else text.encode())
            stream.flush()
            os.fsync(stream.fileno())

    def discard(self) -> None:
        """Delete the records: the run is complete."""
        for path in self.folder.glob("records-*.jsonl"):
            path.unlink(missing_ok=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()
