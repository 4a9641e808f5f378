"""The index of a data set: its pairs by number, each with the place of its image.

`index.parquet` joins the tables of the shards, without what failed, which `failures.parquet` has.

Letters: M pair, T mention.
"""

import hashlib
from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from ovseg.data.dataset.entities import ENTITIES, kept_names
from ovseg.data.dataset.pairs import Mention, Pair
from ovseg.data.dataset.parquet import damage_told, read_columns, require_entities
from ovseg.data.dataset.partners import NOBODY, PARTNERS, read_partners
from ovseg.data.dataset.shards import OK, TABLE_SCHEMA, ShardImages, read_shard_table
from ovseg.data.store import Address, Store, open_store
from ovseg.errors import DataError

INDEX, FAILURES = "index.parquet", "failures.parquet"
INDEX_SCHEMA = pa.schema([field for field in TABLE_SCHEMA if field.name != "status"])
FAILURES_SCHEMA = pa.schema([TABLE_SCHEMA.field(name) for name in ("key", "locator", "status")])
_COLUMNS = ("key", "shard", "offset", "size", "caption", "entities", "starts", "ends")
_READ_SCHEMA = pa.schema([TABLE_SCHEMA.field(name) for name in _COLUMNS])

Numbers = npt.NDArray[np.int64]


def write_index(store: Store, shards: Iterable[int]) -> tuple[Numbers, npt.NDArray[np.uint16]]:
    """Write the index and the failures of these shards, which are all.

    Returns the distinct entities of each pair, sorted, as offsets [M + 1] into a flat array.
    """
    lengths, entities = [np.zeros(1, np.int64)], [np.empty(0, np.uint16)]
    with (
        store.writing(INDEX) as index_path,
        store.writing(FAILURES) as failures_path,
        pq.ParquetWriter(index_path, INDEX_SCHEMA, compression="zstd") as index,
        pq.ParquetWriter(failures_path, FAILURES_SCHEMA, compression="zstd") as failures,
    ):
        for number in shards:
            table = read_shard_table(store, number)
            good = pa.compute.equal(table["status"], OK)
            pairs = table.filter(good).select(INDEX_SCHEMA.names).combine_chunks()
            index.write_table(pairs)
            bad = table.filter(pa.compute.invert(good)).select(FAILURES_SCHEMA.names)
            failures.write_table(bad)
            count, distinct = _distinct(pairs["entities"])
            lengths.append(count)
            entities.append(distinct)
    return np.cumsum(np.concatenate(lengths)), np.concatenate(entities)


def _distinct(column: Any) -> tuple[Numbers, npt.NDArray[np.uint16]]:
    """How many distinct numbers each row of a list column has, and those, sorted row by row."""
    lists = column.combine_chunks()
    rows = np.repeat(np.arange(len(lists)), np.diff(lists.offsets.to_numpy()))
    codes = np.unique(rows << 16 | _flat(column))
    return np.bincount(codes >> 16, minlength=len(lists)), (codes & 0xFFFF).astype(np.uint16)


class Index:
    """The pairs of one data set, local or at any address that fsspec knows.

    Attributes:
        keys, captions: of each pair, [M].
        offsets, mentions: pair i mentions `mentions[offsets[i]:offsets[i + 1]]`, int64 [M + 1]
            and [T]; `starts` and `ends` [T] are their places in the caption.
        entity_names: by number.

    Raises:
        DataError: there is no index, or it is damaged.
    """

    def __init__(self, address: Address) -> None:
        self.store = open_store(address)
        table = self._table()
        self.entity_names = self._entity_names()
        with damage_told(f"{self.store}/{INDEX}", "build it again"):
            require_entities(table, len(self.entity_names))
        self.keys = table["key"]
        self.captions = table["caption"]
        self.shard: Numbers = table["shard"].to_numpy().astype(np.int64)
        self.offset: Numbers = table["offset"].to_numpy()
        self.size: Numbers = table["size"].to_numpy()
        self.starts, self.ends = (_flat(table[name]) for name in ("starts", "ends"))
        self.mentions = _flat(table["entities"])
        lengths = table["entities"].combine_chunks()
        self.offsets: Numbers = lengths.offsets.to_numpy().astype(np.int64)
        self._images = ShardImages(self.store)

    def __len__(self) -> int:
        return len(self.shard)

    def missing_shards(self) -> list[str]:
        """Shards that the index names and the folder lacks; remote ones are not looked for."""
        return self._images.missing(np.unique(self.shard).tolist())

    def image(self, row: int) -> bytes:
        """The encoded image of a pair.

        Raises:
            UnreadableError: the shard is gone, or ends too soon.
        """
        return self._images.read(*(int(x[row]) for x in (self.shard, self.offset, self.size)))

    def partners(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows [M, P] and shared entities [M, P] of each pair's partners, mapped from disk.

        Raises:
            DataError: the folder has none.
        """
        try:
            rows, shared = read_partners(self.store)
        except FileNotFoundError as error:
            raise DataError(
                f"{self.store}/{PARTNERS} cannot be read ({error}): finish the data set with "
                "ovseg build-dataset, or set data.partners to in-batch"
            ) from error
        if not len(rows) == len(shared) == len(self):
            raise DataError(f"{self.store}/{PARTNERS} belongs to another index: build it again")
        return rows, shared

    def locators(self) -> list[str]:
        """Where each pair's image was found: a file's name or an address, [M]."""
        table = self._table(pa.schema([TABLE_SCHEMA.field("locator")]))
        return table["locator"].to_pylist()

    def _table(self, schema: Any = _READ_SCHEMA) -> Any:
        where = f"{self.store}/{INDEX}"
        try:
            with damage_told(where, "build it again"), self.store.open(INDEX) as stream:
                table = read_columns(stream, schema)
                if any(table[n].null_count for n in ("offset", "size") if n in schema.names):
                    raise ValueError("a pair has no image")
        except FileNotFoundError as error:
            raise DataError(
                f"{where} does not exist: data.shards names folders that ovseg "
                "build-dataset has finished, or .tar files"
            ) from error
        return table

    def _entity_names(self) -> tuple[str, ...]:
        where = f"{self.store}/{ENTITIES}"
        try:
            return kept_names(self.store.read(ENTITIES), where)
        except FileNotFoundError as error:
            raise DataError(f"{where} does not exist: build the data set again") from error


@dataclass(frozen=True)
class _Place:
    """Where a row of the whole index is: in which data set's, and which row there."""

    folder: int
    row: int


class PairIndex:
    """All pairs of several data sets as one list; entities of one name count as one.

    Attributes:
        entity_names: of all folders, each once.
        offsets, entities: pair i mentions `entities[offsets[i]:offsets[i + 1]]`, int64 [M + 1] and
            [T].
    """

    def __init__(self, folders: list[Index]) -> None:
        self.folders = folders
        self._rows: Numbers | None = None  # of the whole list, where this is a part of it
        self._own_rows: Numbers | None = None  # and where each of those is in this part
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
        return len(self.offsets) - 1

    def take(self, rows: Numbers) -> "PairIndex":
        """Some of the pairs, in this order, as an index of their own; each row at most once."""
        part = copy(self)
        part._rows = rows if self._rows is None else self._rows[rows]
        part._own_rows = None
        lengths = np.diff(self.offsets)[rows]
        part.offsets = np.concatenate([[0], np.cumsum(lengths)])
        shift = np.repeat(self.offsets[:-1][rows] - part.offsets[:-1], lengths)
        part.entities = self.entities[shift + np.arange(len(shift))]
        return part

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
        if self._rows is not None:
            digest.update(np.ascontiguousarray(self._rows).tobytes())
        return digest.hexdigest()

    def places(self) -> Numbers:
        """Folder, shard and offset of each pair's image, int64 [M, 3]: pairs of one photo agree."""
        columns = [
            np.stack([np.full(len(folder), number), folder.shard, folder.offset], axis=1)
            for number, folder in enumerate(self.folders)
        ]
        whole = np.concatenate(columns)
        return whole if self._rows is None else whole[self._rows]

    def locators(self) -> list[str]:
        """Where each pair's image was found, a file's name or an address, [M]."""
        whole = [locator for folder in self.folders for locator in folder.locators()]
        return whole if self._rows is None else [whole[row] for row in self._rows]

    def captions(self) -> list[str]:
        """All captions, [M]."""
        whole = [text for folder in self.folders for text in folder.captions.to_pylist()]
        return whole if self._rows is None else [whole[row] for row in self._rows]

    def keys(self, rows: Numbers) -> list[str]:
        """Names of some pairs."""
        if len(self.folders) == 1:
            own = rows if self._rows is None else self._rows[rows]
            return self.folders[0].keys.take(pa.array(own)).to_pylist()
        places = [self._place(int(row)) for row in rows]
        return [self.folders[place.folder].keys[place.row].as_py() for place in places]

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
        found, entity = int(rows[place.row, slot]), int(shared[place.row, slot])
        if found == NOBODY:
            return None
        numbers = self._renumbered[place.folder]
        if found >= len(rows) or entity >= len(numbers):
            folder = self.folders[place.folder].store
            raise DataError(f"{folder}/{PARTNERS} names pairs that are not there: build it again")
        own = self._own_row(found + int(self._begins[place.folder]))
        return None if own is None else (own, int(numbers[entity]))

    def _own_row(self, row: int) -> int | None:
        """Where a row of the whole list is in this part; None if it is not in it."""
        if self._rows is None:
            return row
        if self._own_rows is None:
            self._own_rows = np.full(int(self._begins[-1]), -1)
            self._own_rows[self._rows] = np.arange(len(self._rows))
        own = int(self._own_rows[row])
        return own if own >= 0 else None

    def _place(self, row: int) -> _Place:
        if self._rows is not None:
            row = int(self._rows[row])
        folder = int(np.searchsorted(self._begins, row, side="right")) - 1
        return _Place(folder, row - int(self._begins[folder]))


def open_index(addresses: tuple[str, ...]) -> PairIndex:
    """Read the index of each folder.

    Raises:
        DataError: one has none, or no pair is left.
    """
    index = PairIndex([Index(address) for address in addresses])
    if not len(index):
        raise DataError(f"{', '.join(addresses)}: no pairs in the index")
    return index


def _flat(column: Any) -> Numbers:
    """Values of a list column, one after the other."""
    return np.asarray(column.combine_chunks().flatten().to_numpy(), np.int64)
