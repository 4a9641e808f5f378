"""Looking into a finished data set: is it whole, and what is in it?"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from ovseg.data.dataset.folder import DATASET, Dataset, DatasetSummary
from ovseg.data.dataset.index import INDEX
from ovseg.data.dataset.partners import NOBODY, PARTNERS, read_partners
from ovseg.data.dataset.shards import shard_name
from ovseg.data.store import Address, Store
from ovseg.errors import DataError, UsageError


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
        _verify_shards(dataset, found, progress)
        _verify_files(dataset, found)
    if samples and dataset.store.has(INDEX):
        found.samples = _draw_samples(dataset, samples, seed)
    return found


def _verify_shards(
    dataset: Dataset,
    found: Inspection,
    progress: Callable[[str, int, int | None], None] | None,
) -> None:
    shards = dataset.complete_shards()
    for done, stats in enumerate(shards, 1):
        name = shard_name(stats.shard)
        if dataset.store.sha256(f"{name}.tar") != stats.tar_sha256:
            found.faults.append(
                f"{name}.tar does not match its checksum: remove {name}_stats.json and build again"
            )
        if progress is not None:
            progress("verifying shards", done, len(shards))
    found.shards_checked = len(shards)


def _verify_files(dataset: Dataset, found: Inspection) -> None:
    if not dataset.store.has(DATASET):
        return
    for name, expected in dataset.checksums().items():
        if not dataset.store.has(name):
            found.faults.append(f"{name} is missing: build again")
        elif dataset.store.sha256(name) != expected:
            found.faults.append(f"{name} does not match its checksum: remove it and build again")


def _draw_samples(dataset: Dataset, count: int, seed: int) -> list[InspectedPair]:
    with dataset.store.local_path(INDEX) as path:
        index = pl.scan_parquet(path)
        total = index.select(pl.len()).collect().item()
        chosen = np.sort(np.random.default_rng(seed).permutation(total)[:count])
        if not len(chosen):
            return []
        partners, shared = _partners_of(dataset.store, chosen)
        wanted = np.unique(np.concatenate([chosen, partners[partners != NOBODY]]))
        numbered = index.with_row_index("row").filter(pl.col("row").is_in(wanted.tolist()))
        rows = {row["row"]: row for row in numbered.collect().iter_rows(named=True)}
    names = [entity.name for entity in dataset.entities()]
    return [
        _sample(rows, row, list(zip(others, entities, strict=True)), names)
        for row, others, entities in zip(chosen.tolist(), partners, shared, strict=True)
    ]


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


def _partners_of(store: Store, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Partners and shared entities of some rows of the index."""
    try:
        partners, shared = read_partners(store)
    except (OSError, ValueError) as error:
        raise DataError(f"{store}/{PARTNERS} cannot be read ({error}): build again") from error
    return partners[chosen], shared[chosen]
