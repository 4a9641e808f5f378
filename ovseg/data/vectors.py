"""Rows of vectors on disk, computed once: float16, in shards that are mapped and not read.

    000000.tokens.npy   float16 [V, D]: the vectors of the shard's rows, one row after the other
    000000_stats.json   how many vectors each row has, checksums; written last: shard complete

A row is whatever was encoded: a photo with its positions, a caption with its sentence or its
tokens. One that could not be read has no vector, and its reason in the statistics. Nothing here
depends on the time or the machine's number of processes, and a shard is there whole or not at all.

Letters: R row, L vector of a row, V vector of a shard, D width.
"""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ovseg.data.store import FolderStore, checked_name
from ovseg.documents import digits, fit, parse_object
from ovseg.errors import DataError
from ovseg.files import file_digest

_log = logging.getLogger(__name__)

_MAPPED = 16  # shards at once

Half = npt.NDArray[np.float16]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class EncodedRow:
    """What one row became: its vectors [L, D] by field, or why there are none."""

    fields: Mapping[str, npt.NDArray[np.floating]]
    problem: str = ""


@dataclass(frozen=True)
class VectorStats:
    """What is in a shard.

    Attributes:
        lengths: by field, the vectors of each row; a single number where all have as many.
        problems: reasons by row of the shard, as text.
        sha256: of the files, by name.
    """

    rows: int
    lengths: dict[str, list[int]]
    problems: dict[str, str]
    sha256: dict[str, str]


def shard_count(rows: int, rows_per_shard: int) -> int:
    """How many shards so many rows take."""
    return -(-rows // rows_per_shard)


def write_vectors(
    folder: Path, number: int, widths: Mapping[str, int], rows: Iterable[EncodedRow]
) -> None:
    """Write a shard, whole or not at all.

    Args:
        widths: of each field.

    Raises:
        DataError: the folder cannot be written, or a number is too large for float16.
    """
    store = FolderStore(folder)
    rows = list(rows)
    lengths, checksums = {}, {}
    for field, width in widths.items():
        empty = np.empty((0, width), np.float16)
        parts = [_halved(row.fields.get(field, empty), folder) for row in rows]
        name = _file(number, field)
        with store.writing(name) as path, path.open("wb") as stream:
            np.save(stream, np.concatenate([empty, *parts]))
        checksums[name] = store.sha256(name)
        lengths[field] = [len(part) for part in parts]
    problems = {str(row): each.problem for row, each in enumerate(rows) if each.problem}
    stats = VectorStats(len(rows), lengths, problems, checksums)
    store.write_text(_stats(number), json.dumps(asdict(stats)) + "\n")


def _halved(values: npt.NDArray[np.floating], folder: Path) -> Half:
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    if not np.isfinite(half).all():
        raise DataError(f"{folder}: a feature is not finite in float16, which it is kept in")
    return half


def _file(number: int, field: str) -> str:
    return f"{number:06d}.{field}.npy"


def _stats(number: int) -> str:
    return f"{number:06d}_stats.json"


def is_complete(folder: Path, number: int, rows: int) -> bool:
    """Whether a shard of so many rows is there, whole and unchanged since it was written."""
    stats = _read_stats(folder, number)
    if stats is None or stats.rows != rows:
        return False
    files = {name: folder / name for name in _files(number, stats)}
    if stats.sha256.keys() != files.keys():
        return False
    try:
        damaged = [n for n, path in files.items() if file_digest(path) != stats.sha256[n]]
    except OSError:
        return False
    if damaged:
        _log.warning("%s/%s has changed since it was written: made again", folder, damaged[0])
    return not damaged


def _files(number: int, stats: VectorStats) -> list[str]:
    """The files of a shard; what its statistics call them is not followed."""
    return [checked_name(_file(number, field)) for field in stats.lengths]


def _read_stats(folder: Path, number: int) -> VectorStats | None:
    name = _stats(number)
    where = f"{folder}/{name}"
    try:
        stats = fit(VectorStats, parse_object(FolderStore(folder).read(name), where), where)
        _files(number, stats)
        return stats
    except FileNotFoundError:
        return None
    except DataError as error:
        _log.warning("%s: made again", error)
        return None


class VectorRows:
    """One field of the first rows of complete shards, mapped from disk.

    Attributes:
        name: the folder and the field.
        lengths: vectors of each row, int64 [R].
        problems: why a row has none, by row.

    Raises:
        DataError: a shard is missing or damaged.
    """

    def __init__(self, folder: Path, field: str, rows: int, rows_per_shard: int) -> None:
        self.name = f"{folder}/{field}"
        self.rows_per_shard = rows_per_shard
        self._paths: list[Path] = []
        self._open: dict[int, Half] = {}
        self._starts: list[Numbers] = []
        self.problems: dict[int, str] = {}
        lengths = []
        for number in range(shard_count(rows, rows_per_shard)):
            stats = _read_stats(folder, number)
            if stats is None:
                raise DataError(f"{folder}/{_stats(number)}: gone while it was in use; run again")
            own = stats.lengths.get(field, [])
            self._paths.append(folder / _file(number, field))
            count = len(_mapped(self._paths[-1]))
            if len(own) != stats.rows or min(own, default=0) < 0 or sum(own) != count:
                raise DataError(f"{folder}/{_stats(number)} is damaged: remove it and run again")
            lengths.append(np.array(own, np.int64))
            self._starts.append(np.concatenate([[0], np.cumsum(lengths[-1])]))
            begin = number * rows_per_shard
            numbers = ((digits(row), why) for row, why in stats.problems.items())
            self.problems |= {begin + row: why for row, why in numbers if row is not None}
        self.lengths: Numbers = np.concatenate([*lengths, np.empty(0, np.int64)])[:rows]

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def width(self) -> int:
        """Numbers D in a vector."""
        return int(self._shard(0).shape[1])

    @property
    def longest(self) -> int:
        """Most vectors that a row has."""
        return int(self.lengths.max(initial=0))

    def __getitem__(self, row: int) -> Half:
        """The vectors of a row, [L, D]."""
        shard, place = divmod(row, self.rows_per_shard)
        start, end = self._starts[shard][place : place + 2]
        return self._shard(shard)[start:end]

    def _shard(self, number: int) -> Half:
        """A shard, mapped. Few at a time: all pages of a mapping count as the process's memory."""
        if number not in self._open:
            if len(self._open) >= _MAPPED:
                self._open.pop(next(iter(self._open)))
            self._open[number] = _mapped(self._paths[number])
        return self._open[number]

    def take(self, rows: Sequence[int] | Numbers) -> tuple[Half, Numbers]:
        """The vectors of some rows, padded with zeros to the longest of them.

        Returns:
            float16 [B, L, D], and how many of its vectors each row has, int64 [B].
        """
        rows = np.asarray(rows, np.int64)
        lengths = self.lengths[rows]
        found = np.zeros((len(rows), int(lengths.max(initial=0)), self.width), np.float16)
        for place, row in enumerate(rows.tolist()):
            found[place, : lengths[place]] = self[row]
        return found, lengths


def _mapped(path: Path) -> Half:
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # damaged headers fail in many ways
        raise DataError(f"{path} cannot be read ({error}): remove it and run again") from error
    if not isinstance(mapped, np.ndarray) or mapped.dtype != np.float16 or mapped.ndim != 2:
        raise DataError(f"{path} holds something else: remove it and run again")
    return mapped
