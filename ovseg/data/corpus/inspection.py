"""Looking into a finished data set: is it whole, and what is in it?"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from ovseg.data.corpus.dataset import INDEX, Dataset, Summary
from ovseg.data.corpus.partners import NOBODY
from ovseg.data.corpus.plan import shard_count
from ovseg.data.corpus.shards import read_stats, shard_name
from ovseg.errors import DataError, UsageError
from ovseg.files import sha256


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
class Sample:
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

    summary: Summary
    samples: list[Sample] = field(default_factory=list)
    shards_checked: int = 0
    faults: list[str] = field(default_factory=list)


def inspect_dataset(
    folder: Path,
    samples: int = 5,
    verify: bool = True,
    seed: int = 0,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> Inspection:
    """Counts, `samples` pairs drawn with `seed` and, if asked, every checksum compared."""
    if samples < 0:
        raise UsageError("the number of samples cannot be negative")
    dataset = Dataset(folder)
    found = Inspection(dataset.summary())
    if not found.summary.complete:
        missing = found.summary.shards - found.summary.shards_complete
        found.faults.append(f"{missing} of {found.summary.shards} shards are not built yet")
    if verify:
        _verify_shards(dataset, found, progress)
        _verify_files(dataset, found)
    if samples and (folder / INDEX).is_file():
        found.samples = _draw_samples(dataset, samples, seed)
    return found


def _verify_shards(
    dataset: Dataset,
    found: Inspection,
    progress: Callable[[str, int, int | None], None] | None,
) -> None:
    total = shard_count(dataset.plan)
    for number in range(total):
        if (stats := read_stats(dataset.folder, number)) is not None:
            found.shards_checked += 1
            tar = dataset.folder / f"{shard_name(number)}.tar"
            if sha256(tar) != stats.tar_sha256:
                found.faults.append(
                    f"{tar.name} does not match its checksum: "
                    f"remove {shard_name(number)}_stats.json and build again"
                )
        if progress is not None:
            progress("verifying shards", number + 1, total)


def _verify_files(dataset: Dataset, found: Inspection) -> None:
    if not (dataset.folder / "dataset.json").is_file():
        return
    for name, expected in dataset.checksums().items():
        path = dataset.folder / name
        if not path.is_file():
            found.faults.append(f"{name} is missing: build again")
        elif sha256(path) != expected:
            found.faults.append(f"{name} does not match its checksum: remove it and build again")


def _draw_samples(dataset: Dataset, count: int, seed: int) -> list[Sample]:
    index = pl.scan_parquet(dataset.folder / INDEX)
    total = index.select(pl.len()).collect().item()
    chosen = np.sort(np.random.default_rng(seed).permutation(total)[:count])
    partners = _load(dataset.folder / "partners.npy")[chosen] if total else np.empty((0, 0))
    shared = _load(dataset.folder / "partner_entities.npy")[chosen] if total else partners
    wanted = np.unique(np.concatenate([chosen, partners[partners != NOBODY].ravel()]))
    rows = dict(
        zip(
            wanted.tolist(),
            index.with_row_index("row").filter(pl.col("row").is_in(wanted.tolist()))
            .select("key", "caption", "width", "height", "entities", "starts", "ends")
            .collect().rows(),
            strict=True,
        )
    )  # fmt: skip
    names = [entity.name for entity in dataset.entities()]
    made = []
    for row, others, entities in zip(chosen.tolist(), partners, shared, strict=True):
        key, caption, width, height, *spans = rows[row]
        pairs = [
            Partner(rows[int(other)][0], rows[int(other)][1], names[entity])
            for other, entity in zip(others, entities, strict=True)
            if other != NOBODY
        ]
        found = [Span(names[n], start, end) for n, start, end in zip(*spans, strict=True)]
        made.append(Sample(key, caption, width, height, found, pairs))
    return made


def _load(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}): build again") from error
