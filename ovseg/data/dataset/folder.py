"""The folder of a data set: its recipe, its files, and putting them together at the end."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

from pydantic import Field

from ovseg.data.dataset.entities import ENTITIES, EntityList, entities_toml, parse_entities
from ovseg.data.dataset.index import FAILURES, INDEX, write_index
from ovseg.data.dataset.partners import PARTNERS, SHARED_ENTITIES, EntityLists, write_partners
from ovseg.data.dataset.plan import PLAN, PlanSummary, Tally, shard_count
from ovseg.data.dataset.shards import ShardStats, is_shard_file, read_stats
from ovseg.data.store import MOST_BYTES, Address, FolderStore, open_store
from ovseg.documents import Bounds, fit, parse_object
from ovseg.errors import DataError, OvsegError, UsageError

FORMAT = 1
RECIPE, PLAN_SUMMARY = "recipe.json", "plan.json"
REPORT, DATASET = "report.html", "dataset.json"
_NEWER = {"all_captions": False}  # settings that older data sets do not name, nor equal ones
HEAD = (RECIPE, ENTITIES, PLAN, PLAN_SUMMARY)  # what is there before any shard
CHECKED = (INDEX, FAILURES, ENTITIES, PARTNERS, SHARED_ENTITIES)
SETTINGS = Bounds(size=MOST_BYTES)  # 65,535 entities are counted in some of these files
_OURS = frozenset((*HEAD, *CHECKED, REPORT, DATASET))


def is_ours(name: str) -> bool:
    """Whether a data set has a file of this name."""
    return name in _OURS or is_shard_file(name)


@dataclass(frozen=True)
class ImageOptions:
    """How images are stored; `short_side` 0 keeps JPEG files as they are, byte for byte."""

    short_side: int = 256  # pixels; smaller images keep their size
    quality: int = 90  # JPEG
    max_pixels: int = 50_000_000  # refused above, before decoding
    max_bytes: int = 30_000_000
    min_side: int = 16  # pixels; smaller are spacers and trackers
    max_aspect: float = 8.0  # longer side to shorter


@dataclass(frozen=True)
class BuildSettings:
    """What was asked for, as far as the bytes of a data set depend on it, and nothing else."""

    source: str
    source_fingerprint: str
    entities: str
    match: str
    seed: int
    rows_per_shard: int
    partners: int
    image: ImageOptions
    tagger: str = ""  # spaCy's pipeline and version, if captions were or will be tagged
    all_captions: bool = False  # those that name no entity, too
    format: int = FORMAT


@dataclass(frozen=True)
class _Drawing:
    """What of a recipe the partners are drawn by."""

    partners: Annotated[int, Field(ge=1, le=10_000)]
    seed: Annotated[int, Field(ge=0, lt=1 << 64)]


@dataclass(frozen=True)
class _Counted:
    """`plan.json`."""

    read: int
    dropped: dict[str, int]
    rows: int
    captions: list[int]


@dataclass(frozen=True)
class _Joined:
    """What `dataset.json` says of the other files."""

    sha256: dict[str, Annotated[str, Field(pattern="^[0-9a-f]{64}$")]]


@dataclass
class DatasetSummary:
    """What a data set holds; rows are pairs, failures are pairs without an image, by reason."""

    folder: str
    captions_read: int = 0
    captions_dropped: dict[str, int] = field(default_factory=dict)
    captions_matched: int = 0
    shards: int = 0
    shards_complete: int = 0
    pairs: int = 0
    image_bytes: int = 0
    tar_bytes: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    entity_captions: dict[str, int] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every shard of the plan is there."""
        return self.shards_complete == self.shards


class Dataset:
    """A place that a data set is, or will be, in."""

    def __init__(self, address: Address) -> None:
        self.store = open_store(address)

    @contextmanager
    def claimed(self, settings: BuildSettings) -> Iterator[None]:
        """The block makes the plan of a data set with these settings.

        Where it fails before there is a plan, what was begun is removed, so that the corrected
        command is not refused; a place that others may be building at is left as it is. What
        killed builders left is removed once it is known that the place is ours.
        """
        before = self.store.sizes(HEAD)
        self.claim(settings)
        if isinstance(self.store, FolderStore):
            self.remove_leftovers()
        try:
            yield
        except OvsegError:
            if isinstance(self.store, FolderStore) and not self.store.has(PLAN):
                for name in {ENTITIES, RECIPE} - before.keys():
                    self.store.remove(name)
            raise

    def claim(self, settings: BuildSettings) -> None:
        """Make the place that of these settings, or refuse if it is another's."""
        mine = asdict(settings)
        head = self.store.sizes(HEAD)
        if RECIPE in head and len(head) > 1:  # a recipe alone is a build that never got anywhere
            theirs = _NEWER | self.recipe()
            # Without a tagger nothing could come out differently: it would be missed, and said so.
            asked = mine if settings.tagger else mine.keys() - {"tagger"}
            if differing := sorted(key for key in asked if mine[key] != theirs.get(key)):
                what = _differences(differing, mine, theirs)
                raise UsageError(
                    f"{self.store} was begun with other settings ({what}): "
                    "give the same ones or another --output"
                )
        elif any(name.endswith(".tar") for name in self.store.names()):
            raise UsageError(f"{self.store} holds .tar files that are not ours: give another")
        else:
            written = {k: v for k, v in mine.items() if k not in _NEWER or v != _NEWER[k]}
            self.store.write_text(RECIPE, json.dumps(written, indent=2) + "\n")

    def is_finished(self) -> bool:
        """Whether the files that join all shards are there."""
        if not self.store.has(DATASET):
            return False
        return self.store.has(*self.checksums(), REPORT)

    def reopen(self) -> None:
        """Say that shards are about to change, and what joins them will have to be made again."""
        self.store.remove(DATASET)

    def remove_leftovers(self) -> None:
        """Remove what killed builders left; the place must be known to be ours."""
        self.store.remove_leftovers(is_ours)

    def recipe(self) -> dict[str, Any]:
        """The recipe as it was written."""
        return self._load_json(RECIPE)

    def checksums(self) -> dict[str, str]:
        """SHA-256 of the files that join all shards, by name; of a finished data set.

        Raises:
            DataError: it names another file than those.
        """
        where = f"{self.store}/{DATASET}"
        found = fit(_Joined, self._load_json(DATASET), where).sha256
        if strange := sorted(found.keys() - set(CHECKED)):
            raise DataError(
                f"{where} names {strange[0][:100]!r}, which is no file of a data set: it was not "
                "written by ovseg"
            )
        return found

    def entities(self) -> EntityList:
        """The entities of `entities.toml`."""
        return parse_entities(self.store.read(ENTITIES), f"{self.store}/{ENTITIES}")

    def save_entities(self, entities: EntityList) -> None:
        """Write `entities.toml`."""
        self.store.write_text(ENTITIES, entities_toml(entities))

    def save_plan_summary(self, summary: PlanSummary) -> None:
        """Record what went into the plan; its presence says that the plan is complete."""
        content = {
            "read": summary.tally.read,
            "dropped": dict(sorted(summary.tally.dropped.items())),
            "rows": summary.rows,
            "captions": [summary.captions[n] for n in range(max(summary.captions, default=-1) + 1)],
        }
        self.store.write_text(PLAN_SUMMARY, json.dumps(content, indent=2) + "\n")

    def load_plan_summary(self) -> PlanSummary | None:
        """What went into the plan; None where it is still to be made."""
        if not self.store.has(PLAN_SUMMARY, PLAN):
            return None
        where = f"{self.store}/{PLAN_SUMMARY}"
        content = fit(_Counted, self._load_json(PLAN_SUMMARY), where)
        tally = Tally(content.read, Counter(content.dropped))
        return PlanSummary(tally, content.rows, Counter(dict(enumerate(content.captions))))

    def complete_shards(self) -> list[ShardStats]:
        """The statistics of all shards that are complete."""
        return list(read_stats(self.store, range(shard_count(self.store))).values())

    def summary(self) -> DatasetSummary:
        """Counts, from the plan and the shards' statistics."""
        plan = self.load_plan_summary()
        if plan is None:
            raise DataError(f"{self.store} is no data set, or its build has not got to a plan")
        names = [entity.name for entity in self.entities()]
        summary = DatasetSummary(
            self.store.address,
            plan.tally.read,
            dict(plan.tally.dropped),
            plan.rows,
            shard_count(self.store),
            entity_captions={name: plan.captions[n] for n, name in enumerate(names)},
        )
        failures: Counter[str] = Counter()
        for stats in self.complete_shards():
            summary.shards_complete += 1
            summary.pairs += stats.written
            summary.image_bytes += stats.image_bytes
            summary.tar_bytes += stats.tar_size
            failures.update(stats.failures)
        summary.failures = dict(failures.most_common())
        return summary

    def finish(self) -> None:
        """Join the shards' tables into the index, draw the partners, sum everything up."""
        recipe = self.recipe()
        drawing = fit(_Drawing, recipe, f"{self.store}/{RECIPE}")
        offsets, entities = write_index(self.store, range(shard_count(self.store)))
        if len(offsets) > 1:
            lists = EntityLists(offsets, entities, len(self.entities()))
            write_partners(lists, self.store, drawing.partners, drawing.seed)
        summary = asdict(self.summary()) | {"folder": "."}
        content = {
            "recipe": recipe,
            "summary": summary,
            "sha256": {n: self.store.sha256(n) for n in CHECKED if self.store.has(n)},
        }
        self.store.write_text(DATASET, json.dumps(content, indent=2) + "\n")

    def _load_json(self, name: str) -> dict[str, Any]:
        try:
            content = self.store.read(name)
        except FileNotFoundError as error:
            raise DataError(f"{self.store} is no data set: it has no {name}") from error
        return parse_object(content, f"{self.store}/{name} is damaged", SETTINGS)


def _differences(keys: list[str], mine: dict[str, Any], theirs: dict[str, Any]) -> str:
    """Which settings differ, and for those that people can read, from what to what."""
    told = []
    for key in keys:
        if key in ("source_fingerprint", "entities"):
            told.append(f"{key} differs")
        else:
            told.append(f"{key} was {theirs.get(key)}, is {mine[key]}")
    return "; ".join(told)
