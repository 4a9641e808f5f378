"""The pairs of `ovseg build-dataset`, read by number: one range of bytes per image.

Letters: M pair, T mention.
"""

import hashlib
import io
import os
import sys
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ovseg.errors import DataError, MissingDependencyError
from ovseg.training.feed.pairs import Mention, Pair

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NOBODY = 0xFFFFFFFF
_COLUMNS = ("key", "shard", "offset", "size", "caption", "entities", "starts", "ends")
_FILES_KEPT_OPEN = 256

Numbers = npt.NDArray[np.int64]


class UnreadableError(Exception):
    """An image's bytes cannot be had; `fatal` if its shard as a whole cannot."""

    def __init__(self, reason: str, fatal: bool) -> None:
        super().__init__(reason)
        self.fatal = fatal


class Folder:
    """One folder of `ovseg build-dataset`, local or at any address that fsspec knows.

    Raises:
        DataError: there is no index, or it is damaged.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        table = self._table()
        self.keys = table["key"]
        self.captions = table["caption"]
        self.shard: Numbers = table["shard"].to_numpy().astype(np.int64)
        self.offset: Numbers = table["offset"].to_numpy()
        self.size: Numbers = table["size"].to_numpy()
        self.starts, self.ends = (_flat(table[name]) for name in ("starts", "ends"))
        self.mentions = _flat(table["entities"])
        lengths = table["entities"].combine_chunks()
        self.offsets: Numbers = lengths.offsets.to_numpy().astype(np.int64)
        self.entity_names = self._entity_names()
        self._open_files: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self.shard)

    @property
    def is_local(self) -> bool:
        """Whether the folder is one of this machine's."""
        return "://" not in self.address

    def path_of(self, shard: int) -> str:
        """Address of a shard."""
        return f"{self.address}/{shard:06d}.tar"

    def missing_shards(self) -> list[str]:
        """Shards that the index names and the folder lacks; remote ones are not looked for."""
        if not self.is_local:
            return []
        paths = (self.path_of(int(shard)) for shard in np.unique(self.shard))
        return [path for path in paths if not os.path.isfile(path)]

    def image(self, row: int) -> bytes:
        """The encoded image of a pair.

        Raises:
            UnreadableError: the shard is gone, or ends too soon.
        """
        shard, start, size = (int(x[row]) for x in (self.shard, self.offset, self.size))
        try:
            data = self._read(shard, start, size)
        except OSError as error:
            raise UnreadableError(
                f"{self.path_of(shard)}: {error.strerror or error}", fatal=True
            ) from error
        if len(data) != size:
            raise UnreadableError(f"{self.path_of(shard)} ends too soon", fatal=False)
        return data

    def partners(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows [M, P] and shared entities [M, P] of each pair's partners, mapped from disk.

        Raises:
            DataError: the folder has none.
        """
        arrays = []
        for name in ("partners.npy", "partner_entities.npy"):
            try:
                if self.is_local:
                    arrays.append(np.load(f"{self.address}/{name}", mmap_mode="r"))
                else:
                    stream = io.BytesIO(self._contents(name))
                    arrays.append(np.load(stream, allow_pickle=False))
            except (OSError, ValueError) as error:
                raise DataError(
                    f"{self.address}/{name} cannot be read ({error}): finish the data set with "
                    "ovseg build-dataset, or set data.partners to in-batch"
                ) from error
        if any(len(array) != len(self) for array in arrays):
            raise DataError(f"{self.address}/partners.npy belongs to another index: build it again")
        return arrays[0], arrays[1]

    def _read(self, shard: int, start: int, size: int) -> bytes:
        if not self.is_local:
            system = self._filesystem
            return bytes(system.cat_file(self.path_of(shard), start=start, end=start + size))
        handle = self._open_files.get(shard)
        if handle is None:
            if len(self._open_files) >= _FILES_KEPT_OPEN:
                os.close(self._open_files.pop(next(iter(self._open_files))))
            handle = os.open(self.path_of(shard), os.O_RDONLY)
            self._open_files[shard] = handle
        return os.pread(handle, size, start)  # has no position, so processes can share the file

    @cached_property
    def _filesystem(self) -> Any:
        return _fsspec().core.url_to_fs(self.address)[0]

    def _contents(self, name: str) -> bytes:
        with _fsspec().open(f"{self.address}/{name}", "rb") as stream:
            return bytes(stream.read())

    def _table(self) -> Any:
        path = f"{self.address}/index.parquet"
        parquet = _pyarrow()
        try:
            with _fsspec().open(path, "rb") as stream:
                return parquet.read_table(stream, columns=list(_COLUMNS))
        except FileNotFoundError as error:
            raise DataError(
                f"{path} does not exist: data.shards names folders that ovseg build-dataset has "
                "finished, or .tar files"
            ) from error
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{path} is damaged ({str(error).splitlines()[0]})") from error

    def _entity_names(self) -> tuple[str, ...]:
        path = f"{self.address}/entities.toml"
        try:
            listed = tomllib.loads(self._contents("entities.toml").decode("utf-8"))
            kept = [entry for entry in listed["entity"] if entry.get("kept", True)]
            return tuple(str(entry["name"]) for entry in kept)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path} cannot be read ({error})") from error


@dataclass(frozen=True)
class _Place:
    """Where a row of the whole index is: which folder, and which row there."""

    folder: int
    row: int


class PairIndex:
    """All pairs of several folders as one list; entities of one name count as one.

    Attributes:
        entity_names: of all folders, each once.
        offsets, entities: pair i mentions `entities[offsets[i]:offsets[i + 1]]`, int64 [M + 1] and
            [T].
    """

    def __init__(self, folders: list[Folder]) -> None:
        self.folders = folders
        self._begins: Numbers = np.cumsum([0, *(len(folder) for folder in folders)])
        names = dict.fromkeys(name for folder in folders for name in folder.entity_names)
        self.entity_names = tuple(names)
        numbers = {name: number for number, name in enumerate(names)}
        self._renumbered = [
            np.array([numbers[name] for name in folder.entity_names], np.int64)
            for folder in folders
        ]
        parts = zip(folders, self._renumbered, strict=True)
        self.entities: Numbers = np.concatenate([new[f.mentions] for f, new in parts])
        lengths = [np.diff(folder.offsets) for folder in folders]
        self.offsets: Numbers = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
        self._partners: list[tuple[np.ndarray, np.ndarray]] = []

    def __len__(self) -> int:
        return int(self._begins[-1])

    def check_shards(self) -> None:
        """Make sure before a long run that every local shard is there.

        Raises:
            DataError: naming the first that is not.
        """
        missing = [path for folder in self.folders for path in folder.missing_shards()]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise DataError(
                f"{missing[0]}{more}: the index names this shard, but it is gone; copy it back, or "
                "remove its _stats.json and run ovseg build-dataset again"
            )

    def fingerprint(self) -> str:
        """Changes whenever the list of pairs does; the same wherever the folders lie."""
        digest = hashlib.sha256()
        for folder in self.folders:
            for column in (folder.shard, folder.offset, folder.size, folder.mentions):
                digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()

    def pair(self, row: int) -> Pair:
        """Key, caption and mentions of a pair."""
        place = self._place(row)
        folder = self.folders[place.folder]
        span = slice(*folder.offsets[place.row : place.row + 2])
        columns = (folder.mentions[span], folder.starts[span], folder.ends[span])
        mentions = [
            Mention(folder.entity_names[entity], int(start), int(end))
            for entity, start, end in zip(*columns, strict=True)
        ]
        mentions.sort(key=lambda mention: mention.start)
        key = folder.keys[place.row].as_py()
        return Pair(key, folder.captions[place.row].as_py(), tuple(mentions))

    def image(self, row: int) -> bytes:
        """The encoded image of a pair; UnreadableError if it cannot be had."""
        place = self._place(row)
        return self.folders[place.folder].image(place.row)

    def load_partners(self) -> None:
        """Map the partners; DataError if a folder has none."""
        self._partners = [folder.partners() for folder in self.folders]

    def partner(self, row: int, slot: int) -> tuple[int, int] | None:
        """Row and shared entity of one of a pair's partners, slots counted round; None without."""
        place = self._place(row)
        rows, shared = self._partners[place.folder]
        slot %= rows.shape[1]
        found = int(rows[place.row, slot])
        if found == NOBODY:
            return None
        entity = self._renumbered[place.folder][int(shared[place.row, slot])]
        return found + int(self._begins[place.folder]), int(entity)

    def _place(self, row: int) -> _Place:
        folder = int(np.searchsorted(self._begins, row, side="right")) - 1
        return _Place(folder, row - int(self._begins[folder]))


def open_index(addresses: tuple[str, ...]) -> PairIndex:
    """Read the index of each folder.

    Raises:
        DataError: one has none, or no pair is left.
    """
    index = PairIndex([Folder(address) for address in addresses])
    if not len(index):
        raise DataError(f"{', '.join(addresses)}: no pairs in the index")
    return index


def _flat(column: Any) -> Numbers:
    """Values of a list column, one after the other."""
    return np.asarray(column.combine_chunks().flatten().to_numpy(), np.int64)


def _fsspec() -> Any:
    try:
        import fsspec
    except ImportError as error:
        raise MissingDependencyError("fsspec", "train", "reading shards") from error
    return fsspec


def _pyarrow() -> Any:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise MissingDependencyError("pyarrow", "train", "reading the index") from error
    return parquet
