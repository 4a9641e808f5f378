"""Looking into a finished data set: is it whole, and what is in it?"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from ovseg.data.dataset.folder import DATASET, Dataset, DatasetSummary
from ovseg.data.dataset.index import FAILURES, FAILURES_SCHEMA, INDEX, INDEX_SCHEMA
from ovseg.data.dataset.parquet import (
    damage_told,
    require_entities,
    require_proportion,
    rows_of,
)
from ovseg.data.dataset.partners import NOBODY, PARTNERS, read_partners
from ovseg.data.dataset.shards import OK, ShardStats, read_shard_table, shard_name
from ovseg.data.store import Address, Store
from ovseg.errors import DataError, UsageError

_SHOWN = pa.schema(
    [
        INDEX_SCHEMA.field(name)
        for name in ("key", "caption", "width", "height", "entities", "starts", "ends")
    ]
)
_SHUFFLED = 1 << 26  # rows that are drawn from as a whole
_AT_ONCE = 1 << 16  # rows


@dataclass(frozen=True)
class Span:
    """An entity in a caption; `start` and `end` count code points."""

    name: str
    start: int
    end: int


@dataclass(frozen=True)
class Partner:
    """Another pair and the entity that it shares."""

    key: str
    caption: str
    entity: str


@dataclass(frozen=True)
class InspectedPair:
    """One pair of a data set."""

    key: str
    caption: str
    width: int
    height: int
    entities: list[Span]
    partners: list[Partner]


@dataclass
class Inspection:
    """What `inspect_dataset` found; `faults` are sentences, none if all is well."""

    summary: DatasetSummary
    samples: list[InspectedPair] = field(default_factory=list)
    shards_checked: int = 0
    faults: list[str] = field(default_factory=list)


def inspect_dataset(
    address: Address,
    samples: int = 5,
    verify: bool = True,
    seed: int = 0,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> Inspection:
    """Counts, `samples` pairs drawn with `seed` and, if asked, every checksum compared."""
    if samples < 0:
        raise UsageError("the number of samples cannot be negative")
    dataset = Dataset(address)
    found = Inspection(dataset.summary())
    if not found.summary.complete:
        missing = found.summary.shards - found.summary.shards_complete
        found.faults.append(f"{missing} of {found.summary.shards} shards are not built yet")
    if verify:
        shards = dataset.complete_shards()
        _verify_shards(dataset, found, shards, progress)
        _verify_tables(dataset, found, shards)
        _verify_files(dataset, found)
    if samples and dataset.store.has(INDEX):
        found.samples = _draw_samples(dataset, samples, seed)
    return found


def _verify_shards(
    dataset: Dataset,
    found: Inspection,
    shards: Sequence[ShardStats],
    progress: Callable[[str, int, int | None], None] | None,
) -> None:
    for done, stats in enumerate(shards, 1):
        name = shard_name(stats.shard)
        if dataset.store.sha256(f"{name}.tar") != stats.tar_sha256:
            found.faults.append(
                f"{name}.tar does not match its checksum: remove {name}_stats.json and build again"
            )
        if progress is not None:
            progress("verifying shards", done, len(shards))
    found.shards_checked = len(shards)


def _verify_tables(dataset: Dataset, found: Inspection, shards: Sequence[ShardStats]) -> None:
    """Compare the shards' tables, which have no checksums, with what joins them, which has."""
    if not (found.summary.complete and dataset.store.has(INDEX, FAILURES)):
        return
    joined = ((INDEX, INDEX_SCHEMA), (FAILURES, FAILURES_SCHEMA))
    with ExitStack() as stack:
        takers = []
        for name, schema in joined:
            stack.enter_context(damage_told(f"{dataset.store}/{name}", "build again"))
            stream = stack.enter_context(dataset.store.open(name))
            file = pq.ParquetFile(stream)
            require_proportion(file, stream)
            takers.append(rows_of(file, schema))
        for stats in shards:
            name = shard_name(stats.shard)
            try:
                table = read_shard_table(dataset.store, stats.shard)
            except DataError as error:
                found.faults.append(str(error))
                return  # whose rows the next one's would be compared with
            good = pa.compute.equal(table["status"], OK)
            parts = (table.filter(good), table.filter(pa.compute.invert(good)))
            for part, take, (_, schema) in zip(parts, takers, joined, strict=True):
                if not take(part.num_rows).equals(part.select(schema.names)):
                    found.faults.append(
                        f"{name}.parquet is not what was joined into {INDEX}: remove "
                        f"{name}_stats.json and build again"
                    )
                    return


def _verify_files(dataset: Dataset, found: Inspection) -> None:
    if not dataset.store.has(DATASET):
        return
    for name, expected in dataset.checksums().items():
        if not dataset.store.has(name):
            found.faults.append(f"{name} is missing: build again")
        elif dataset.store.sha256(name) != expected:
            found.faults.append(f"{name} does not match its checksum: remove it and build again")


def _draw_samples(dataset: Dataset, count: int, seed: int) -> list[InspectedPair]:
    names = [entity.name for entity in dataset.entities()]
    where = f"{dataset.store}/{INDEX}"
    with damage_told(where, "build again"), dataset.store.open(INDEX) as stream:
        index = pq.ParquetFile(stream)
        require_proportion(index, stream)
        total = index.metadata.num_rows
        chosen = _draw_rows(total, count, seed)
        if not len(chosen):
            return []
        partners, shared = _partners_of(dataset.store, chosen, total, len(names))
        wanted = np.unique(np.concatenate([chosen, partners[partners != NOBODY]]))
        rows = _pick(index, wanted, len(names))
    return [
        _sample(rows, row, list(zip(others, entities, strict=True)), names)
        for row, others, entities in zip(chosen.tolist(), partners, shared, strict=True)
    ]


def _draw_rows(total: int, count: int, seed: int) -> np.ndarray:
    """Up to `count` of `total` rows, sorted; what a file claims to hold takes no memory."""
    random = np.random.default_rng(seed)
    if total > _SHUFFLED:
        return np.unique(random.integers(total, size=count))
    return np.sort(random.permutation(total)[:count])


def _pick(index: pq.ParquetFile, wanted: np.ndarray, entities: int) -> dict[int, dict[str, Any]]:
    """Rows of the index by number; ValueError where it has fewer, or they name what is not."""
    take, start = rows_of(index, _SHOWN), 0
    found: dict[int, dict[str, Any]] = {}
    while (part := take(_AT_ONCE)).num_rows:
        require_entities(part, entities)
        here = wanted[(wanted >= start) & (wanted < start + part.num_rows)]
        found.update(zip(here.tolist(), part.take(here - start).to_pylist(), strict=True))
        start += part.num_rows
    if len(found) < len(wanted):
        raise ValueError(f"it has {start} rows")
    return found


def _sample(
    rows: dict[int, dict[str, Any]], number: int, partners: list[tuple[int, int]], names: list[str]
) -> InspectedPair:
    """One pair of the index, with its partners as (row, shared entity)."""
    row = rows[number]
    spans = zip(row["entities"], row["starts"], row["ends"], strict=True)
    others = [
        Partner(rows[int(other)]["key"], rows[int(other)]["caption"], names[entity])
        for other, entity in partners
        if other != NOBODY
    ]
    found = [Span(names[entity], start, end) for entity, start, end in spans]
    return InspectedPair(row["key"], row["caption"], row["width"], row["height"], found, others)


def _partners_of(
    store: Store, chosen: np.ndarray, pairs: int, entities: int
) -> tuple[np.ndarray, np.ndarray]:
    """Partners and shared entities of some rows of the index."""
    try:
        partners, shared = read_partners(store)
    except FileNotFoundError as error:
        raise DataError(f"{store}/{PARTNERS} cannot be read ({error}): build again") from error
    if len(partners) != pairs:
        raise DataError(f"{store}/{PARTNERS} belongs to another index: build again")
    partners, shared = np.array(partners[chosen]), np.array(shared[chosen])
    real = partners != NOBODY
    if (partners[real] >= pairs).any() or (shared[real] >= entities).any():
        raise DataError(f"{store}/{PARTNERS} names pairs that are not there: build again")
    return partners, shared
