"""The folder of a data set: its recipe, its files, and putting them together at the end."""

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ovseg.data.corpus.captions import Tally
from ovseg.data.corpus.encoding import ImageOptions
from ovseg.data.corpus.entities import EntityList, entities_toml, parse_entities
from ovseg.data.corpus.partners import EntityLists, write_partners
from ovseg.data.corpus.places import Address, open_place
from ovseg.data.corpus.plan import PLAN, PlanSummary, shard_count
from ovseg.data.corpus.shards import INDEX_SCHEMA, OK, ShardStats, read_shard_table, read_stats
from ovseg.errors import DataError, UsageError

FORMAT = 1
RECIPE, ENTITIES, PLAN_SUMMARY = "recipe.json", "entities.toml", "plan.json"
INDEX, FAILURES = "index.parquet", "failures.parquet"
REPORT, DATASET = "report.html", "dataset.json"
HEAD = (RECIPE, ENTITIES, PLAN, PLAN_SUMMARY)  # what is there before any shard
CHECKED = (INDEX, FAILURES, ENTITIES, "partners.npy", "partner_entities.npy")


@dataclass(frozen=True)
class Recipe:
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
    format: int = FORMAT


@dataclass
class Summary:
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
        self.place = open_place(address)

    def claim(self, recipe: Recipe) -> None:
        """Make the place this recipe's, or refuse if it is another's."""
        mine = asdict(recipe)
        if self.place.has(RECIPE):
            theirs = self.recipe()
            # Without a tagger nothing could come out differently: it would be missed, and said so.
            asked = mine if recipe.tagger else mine.keys() - {"tagger"}
            if differing := sorted(key for key in asked if mine[key] != theirs.get(key)):
                what = _differences(differing, mine, theirs)
                raise UsageError(
                    f"{self.place} was begun with other settings ({what}): "
                    "give the same ones or another --output"
                )
        elif any(name.endswith(".tar") for name in self.place.names()):
            raise UsageError(f"{self.place} holds .tar files that are not ours: give another")
        else:
            self.place.write_text(RECIPE, json.dumps(mine, indent=2) + "\n")

    def is_finished(self) -> bool:
        """Whether the files that join all shards are there."""
        if not self.place.has(DATASET):
            return False
        return self.place.has(*self.checksums(), REPORT)

    def reopen(self) -> None:
        """Say that shards are about to change, and what joins them will have to be made again."""
        self.place.remove(DATASET)

    def recipe(self) -> dict[str, Any]:
        """The recipe as it was written."""
        return self._load_json(RECIPE)

    def checksums(self) -> dict[str, str]:
        """SHA-256 of the files that join all shards, by name; of a finished data set."""
        return self._load_json(DATASET)["sha256"]

    def entities(self) -> EntityList:
        """The entities of `entities.toml`."""
        return parse_entities(self.place.read(ENTITIES), f"{self.place}/{ENTITIES}")

    def save_entities(self, entities: EntityList) -> None:
        """Write `entities.toml`."""
        self.place.write_text(ENTITIES, entities_toml(entities))

    def save_plan_summary(self, summary: PlanSummary) -> None:
        """Record what went into the plan; its presence says that the plan is complete."""
        content = {
            "read": summary.tally.read,
            "dropped": dict(sorted(summary.tally.dropped.items())),
            "rows": summary.rows,
            "captions": [summary.captions[n] for n in range(max(summary.captions, default=-1) + 1)],
        }
        self.place.write_text(PLAN_SUMMARY, json.dumps(content, indent=2) + "\n")

    def load_plan_summary(self) -> PlanSummary | None:
        """What went into the plan; None where it is still to be made."""
        if not self.place.has(PLAN_SUMMARY, PLAN):
            return None
        content = self._load_json(PLAN_SUMMARY)
        tally = Tally(content["read"], Counter(content["dropped"]))
        return PlanSummary(tally, content["rows"], Counter(dict(enumerate(content["captions"]))))

    def complete_shards(self) -> list[ShardStats]:
        """The statistics of all shards that are complete."""
        return list(read_stats(self.place, range(shard_count(self.place))).values())

    def summary(self) -> Summary:
        """Counts, from the plan and the shards' statistics."""
        plan = self.load_plan_summary()
        if plan is None:
            raise DataError(f"{self.place} is no data set, or its build has not got to a plan")
        names = [entity.name for entity in self.entities()]
        summary = Summary(
            self.place.address,
            plan.tally.read,
            dict(plan.tally.dropped),
            plan.rows,
            shard_count(self.place),
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
        entities = self._join_tables()
        if len(entities):
            offsets = np.concatenate([[0], np.cumsum(entities.list.len().to_numpy())])
            flat = entities.explode().to_numpy()
            lists = EntityLists(offsets, flat, len(self.entities()))
            write_partners(lists, self.place, recipe["partners"], recipe["seed"])
        summary = asdict(self.summary()) | {"folder": "."}
        content = {
            "recipe": recipe,
            "summary": summary,
            "sha256": {n: self.place.sha256(n) for n in CHECKED if self.place.has(n)},
        }
        self.place.write_text(DATASET, json.dumps(content, indent=2) + "\n")

    def _join_tables(self) -> pl.Series:
        """Write the index and the failures; return each pair's distinct entities, sorted."""
        schema = pa.schema([field for field in INDEX_SCHEMA if field.name != "status"])
        bad = pa.schema([INDEX_SCHEMA.field(name) for name in ("key", "locator", "status")])
        entities: list[pl.Series] = []
        with (
            self.place.writing(INDEX) as index_path,
            self.place.writing(FAILURES) as failures_path,
            pq.ParquetWriter(index_path, schema, compression="zstd") as index,
            pq.ParquetWriter(failures_path, bad, compression="zstd") as failures,
        ):
            for number in range(shard_count(self.place)):
                table = read_shard_table(self.place, number)
                good = pa.compute.equal(table["status"], OK)
                pairs = table.filter(good).select(schema.names)
                index.write_table(pairs.combine_chunks())
                failures.write_table(table.filter(pa.compute.invert(good)).select(bad.names))
                named = pl.DataFrame(pl.from_arrow(pairs.select(["entities"])))["entities"]
                entities.append(named.list.unique().list.sort())
        return pl.concat(entities) if entities else pl.Series(dtype=pl.List(pl.UInt16))

    def _load_json(self, name: str) -> dict[str, Any]:
        try:
            return json.loads(self.place.read(name))
        except FileNotFoundError as error:
            raise DataError(f"{self.place} is no data set: it has no {name}") from error
        except (OSError, ValueError) as error:
            raise DataError(f"{self.place}/{name} is damaged ({error})") from error


def _differences(keys: list[str], mine: dict[str, Any], theirs: dict[str, Any]) -> str:
    """Which settings differ, and for those that people can read, from what to what."""
    told = []
    for key in keys:
        if key in ("source_fingerprint", "entities"):
            told.append(f"{key} differs")
        else:
            told.append(f"{key} was {theirs.get(key)}, is {mine[key]}")
    return "; ".join(told)
