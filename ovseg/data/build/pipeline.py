"""Building a data set from beginning to end, and going on where a build was interrupted.

    source -> entities.toml -> plan.parquet -> shards -> index, partners, report

Every step leaves a file that is complete or absent, and the same command skips what is there.
"""

import hashlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from ovseg.data.build.choosing import (
    choose_entities,
    count_nouns,
    load_visual_nouns,
    sample_captions,
)
from ovseg.data.build.engine import Engine
from ovseg.data.build.fetch import fetch_shards
from ovseg.data.build.jobs import MatchJob, ShardJob, build_shard, match_part
from ovseg.data.build.report import write_report
from ovseg.data.build.sources import CaptionSource
from ovseg.data.build.tagging import Tagger, identify
from ovseg.data.dataset.entities import ENTITIES, EntityList, entities_toml, load_entities
from ovseg.data.dataset.folder import BuildSettings, Dataset, DatasetSummary, ImageOptions
from ovseg.data.dataset.plan import PLAN, PlanSummary, Tally, shard_count, write_plan
from ovseg.data.dataset.shards import ShardStats, read_stats
from ovseg.data.guard import PRIVATE, FetchOptions
from ovseg.data.store import Address, FolderStore
from ovseg.data.workers import Progress, silent
from ovseg.errors import DataError, UsageError


@dataclass(frozen=True)
class EntityOptions:
    """Which entities: a file or `paper100`, or (empty) the `top` nouns of a sample."""

    source: str = ""
    top: int = 100
    sample: int = 50_000  # captions tagged to choose from
    apart: bool = False  # every noun by itself, not with its synonyms
    visual_nouns: Path | None = None
    match: str = "lexical"  # or "pos": ambiguous forms are confirmed by a tagger
    pipeline: str = ""  # spaCy's; empty takes what is installed
    all_captions: bool = False  # those that name none, too

    def __post_init__(self) -> None:
        if self.match not in ("lexical", "pos"):
            raise UsageError(f"unknown way to match {self.match!r}: lexical or pos")
        if self.top < 1 or self.sample < 1:
            raise UsageError("the numbers of entities and of sampled captions must be positive")


@dataclass(frozen=True)
class BuildOptions:
    """What to build besides the source; `part` (i, n) builds the i-th of n parts, from 1."""

    entities: EntityOptions = field(default_factory=EntityOptions)
    image: ImageOptions = field(default_factory=ImageOptions)
    fetch: FetchOptions = field(default_factory=FetchOptions)
    engine: Engine = field(default_factory=Engine)
    rows_per_shard: int = 5000
    partners: int = 10
    seed: int = 0
    part: tuple[int, int] = (1, 1)
    retry_failures: bool = False  # fetch again what failed before; what is here stays

    def __post_init__(self) -> None:
        if not 1 <= self.rows_per_shard <= 99_999:
            raise UsageError("a shard holds 1 to 99,999 pairs")
        if self.partners < 1:
            raise UsageError("each pair needs at least one partner")
        if not 1 <= self.part[0] <= self.part[1]:
            raise UsageError(f"there is no part {self.part[0]} of {self.part[1]}")

    def estimated_bytes(self, pairs: int, images: int) -> int:
        """Roughly the disk need of so many pairs, and of their images.

        COCO's photos at 256 pixels and JPEG quality 90 take 0.35 bytes a pixel; for files kept as
        they are, 200 kB are assumed. Each pair also takes 3 kB of tar and index.
        """
        side = self.image.short_side
        image = side * side * 4 / 3 * 0.35 if side else 200_000
        return round(images * image + pairs * 3000)


def build_from_source(
    source: CaptionSource, address: Address, options: BuildOptions, progress: Progress = silent
) -> DatasetSummary:
    """Build, or go on building, the data set of `source` at `address`; return what it holds.

    The same call after any interruption ends with the same bytes. With a part, only that part's
    shards are built; `merge_datasets` joins parts.
    """
    dataset = Dataset(address)
    if isinstance(dataset.store, FolderStore) and source.holds(dataset.store.folder):
        raise UsageError(
            f"{address} lies inside the source {source.address}: give another --output"
        )
    source.check()
    with dataset.store.begin():
        with options.engine.session():
            with dataset.claimed(_settings(source, options)):
                entities = _entities(source, dataset, options, progress)
                make_plan(source, dataset, entities, options, progress)
            _build_shards(source, dataset, entities, options, progress)
        return finish_if_complete(dataset, progress)


def finish_if_complete(dataset: Dataset, progress: Progress = silent) -> DatasetSummary:
    """Write index, partners and report once no shard is missing; return the counts."""
    summary = dataset.summary()
    if summary.complete and not dataset.is_finished():
        progress("index, partners and report", 0, 1)
        dataset.finish()
        write_report(dataset, summary)
        dataset.remove_leftovers()
        progress("index, partners and report", 1, 1)
    if summary.complete and not summary.pairs:
        raise DataError(_why_no_pair(summary))
    return summary


def _why_no_pair(summary: DatasetSummary) -> str:
    """Why a build that came to its end holds nothing, and what to do about it."""
    told = (
        f"no pair was built: none of {summary.captions_matched} images could be had "
        f"({_listed(summary.failures)})"
    )
    again = "put that right and repeat the command with --retry-failures"
    if PRIVATE in summary.failures:
        again = (
            "images in a private network are fetched only by request: repeat the command with "
            "--set fetch.allow_private_hosts=true --retry-failures"
        )
    return f"{told}; {again}"


def _listed(counts: Mapping[str, int], most: int = 10) -> str:
    """`17 HTTP 404, 2 too small`, the most frequent first."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    told = [f"{count} {reason}" for reason, count in ranked[:most]]
    return ", ".join([*told, *([f"{len(ranked) - most} more reasons"] if ranked[most:] else [])])


def choose_and_match(
    source: CaptionSource, options: BuildOptions, progress: Progress = silent
) -> tuple[EntityList, PlanSummary]:
    """Read and match everything and write nothing: the entities, and the counts of the plan."""
    source.check()
    chosen = _choose(source, options, progress)
    summary = PlanSummary()
    for table in _match(source, chosen, options, summary.tally, progress):
        summary.count(table)
    return chosen, summary


def _settings(source: CaptionSource, options: BuildOptions) -> BuildSettings:
    return BuildSettings(
        source=source.kind,
        source_fingerprint=source.fingerprint(),
        entities=_entities_identity(options.entities),
        match=options.entities.match,
        seed=options.seed,
        rows_per_shard=options.rows_per_shard,
        partners=options.partners,
        image=options.image,
        tagger=_tagger_identity(options.entities),
        all_captions=options.entities.all_captions,
    )


def _tagger_identity(options: EntityOptions) -> str:
    """The tagger that the bytes of a data set depend on; empty if on none."""
    return "" if options.source and options.match == "lexical" else identify(options.pipeline)


def _entities_identity(options: EntityOptions) -> str:
    if options.source:
        text = entities_toml(load_entities(options.source))
    else:
        edits = options.visual_nouns.read_bytes() if options.visual_nouns else b""
        apart = ("apart",) if options.apart else ()
        text = repr((options.top, options.sample, hashlib.sha256(edits).hexdigest(), *apart))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _entities(
    source: CaptionSource, dataset: Dataset, options: BuildOptions, progress: Progress
) -> EntityList:
    """The entities of a build that was begun, or chosen now."""
    if not dataset.store.has(ENTITIES):
        dataset.save_entities(_choose(source, options, progress))
    return dataset.entities()


def _choose(source: CaptionSource, options: BuildOptions, progress: Progress) -> EntityList:
    wanted = options.entities
    if wanted.source:
        return load_entities(wanted.source)
    visual = load_visual_nouns(wanted.visual_nouns)
    tagger = Tagger(wanted.pipeline)
    tally = Tally()
    chunks = _reading(source, tally, "sampling captions", progress)
    captions = sample_captions(chunks, wanted.sample, options.seed)
    if not captions:
        raise DataError(_why_no_caption(source, tally))
    done = itertools.count(1)
    counts = count_nouns(
        captions, tagger, lambda _: progress("choosing entities", next(done), len(captions))
    )
    if wanted.apart:
        visual = visual.apart()
    return choose_entities(counts, visual, wanted.top, identify(wanted.pipeline))


def _reading(source: CaptionSource, tally: Tally, step: str, progress: Progress) -> Iterator:
    for chunk in source.chunks(tally):
        yield chunk
        progress(step, tally.read, None)


def make_plan(
    source: CaptionSource,
    dataset: Dataset,
    entities: EntityList,
    options: BuildOptions,
    progress: Progress = silent,
) -> None:
    """Match the whole source into the data set's plan, unless that is there already.

    Raises:
        DataError: no caption names an entity; the plan is not kept.
    """
    if dataset.load_plan_summary() is not None:
        return
    summary = PlanSummary()
    tables = _match(source, entities, options, summary.tally, progress)
    write_plan(tables, dataset.store, options.rows_per_shard, summary)
    if not summary.rows:
        dataset.store.remove(PLAN)
        raise DataError(_why_no_caption(source, summary.tally))
    dataset.save_plan_summary(summary)


def _why_no_caption(source: CaptionSource, tally: Tally) -> str:
    usable = tally.read - tally.dropped.total()
    aside = f" (set aside: {_listed(tally.dropped)})" if tally.dropped else ""
    if not usable:
        return f"{source.address} holds no usable caption{aside}"
    return (
        f"no pair can be built: none of {usable} captions of {source.address} names an "
        f"entity{aside}; give other entities, or other caption columns"
    )


def _match(
    source: CaptionSource,
    entities: EntityList,
    options: BuildOptions,
    tally: Tally,
    progress: Progress,
) -> Iterator[pa.Table]:
    """Match the parts of the source, wherever the engine runs; `tally` is filled in."""
    wanted = options.entities
    jobs = [
        MatchJob(
            source, part, entities, wanted.match == "pos", wanted.pipeline, wanted.all_captions
        )
        for part in source.parts()
    ]
    for table, read in options.engine.run(match_part, jobs):
        tally += read
        progress("matching captions", tally.read, None)
        yield table


def _build_shards(
    source: CaptionSource,
    dataset: Dataset,
    entities: EntityList,
    options: BuildOptions,
    progress: Progress,
) -> None:
    """Build the missing shards of the part, from files or through the network."""
    total = shard_count(dataset.store)
    index, count = options.part
    mine = range(total * (index - 1) // count, total * index // count)
    here = read_stats(dataset.store, mine)
    missing = [number for number in mine if _is_wanted(here.get(number), options)]
    if missing:
        dataset.reopen()
    done = itertools.count(len(mine) - len(missing))
    progress("building shards", next(done), len(mine))
    names = tuple(entity.name for entity in entities)
    jobs = [
        ShardJob(dataset.store, number, source.images, options.image, names) for number in missing
    ]
    if source.images is None:
        shards = fetch_shards(jobs, options.fetch, options.engine)
    else:
        shards = options.engine.run(build_shard, jobs)
    for _ in shards:
        progress("building shards", next(done), len(mine))


def _is_wanted(stats: ShardStats | None, options: BuildOptions) -> bool:
    return stats is None or (options.retry_failures and bool(stats.failures))
