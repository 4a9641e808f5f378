"""The folder of a data set: its recipe, its files, and putting them together at the end."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ovseg.data.corpus.captions import Tally
from ovseg.data.corpus.encoding import ImageOptions
from ovseg.data.corpus.entities import EntityList, load_entities
from ovseg.data.corpus.partners import EntityLists, write_partners
from ovseg.data.corpus.plan import PlanSummary, shard_count
from ovseg.data.corpus.shards import INDEX_SCHEMA, OK, ShardStats, read_stats, shard_name
from ovseg.errors import DataError, UsageError
from ovseg.files import replacing, sha256, write_text

FORMAT = 1
INDEX, FAILURES = "index.parquet", "failures.parquet"
CHECKED = (INDEX, FAILURES, "entities.toml", "partners.npy", "partner_entities.npy")


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
    """A folder that a data set is, or will be, in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plan = folder / "plan.parquet"
        self.plan_summary = folder / "plan.json"
        self.entities_file = folder / "entities.toml"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other builders out of the folder; the lock goes when the process does."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as stream:
            try:
                import fcntl

                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except ImportError:  # no such locks on this system
                pass
            except OSError as error:
                raise UsageError(
                    f"{self.folder}: another build is at work here; wait for it to end"
                ) from error
            yield

    def remove_leftovers(self) -> None:
        """Remove the temporary files of a build that was killed; only under the lock."""
        ours = (".tar", ".parquet", ".sha256", ".json", ".npy", ".toml", ".html")
        for path in self.folder.glob(".*.*"):
            if path.is_file() and path.suffix in ours:
                path.unlink(missing_ok=True)

    def claim(self, recipe: Recipe) -> None:
        """Make the folder this recipe's, or refuse if it is another's."""
        path = self.folder / "recipe.json"
        mine = asdict(recipe)
        if path.is_file():
            theirs = _load_json(path)
            if differing := sorted(key for key in mine if mine[key] != theirs.get(key)):
                raise UsageError(
                    f"{self.folder} was begun with other settings ({', '.join(differing)} differ): "
                    "give the same ones or another --output"
                )
        elif any(self.folder.glob("*.tar")):
            raise UsageError(f"{self.folder} holds .tar files that are not ours: give another")
        else:
            write_text(path, json.dumps(mine, indent=2) + "\n")

    def is_finished(self) -> bool:
        """Whether the files that join all shards are there."""
        if not (self.folder / "dataset.json").is_file():
            return False
        return all((self.folder / name).is_file() for name in (*self.checksums(), "report.html"))

    def reopen(self) -> None:
        """Say that shards are about to change, and what joins them will have to be made again."""
        (self.folder / "dataset.json").unlink(missing_ok=True)

    def recipe(self) -> dict[str, Any]:
        """The recipe as it was written."""
        return _load_json(self.folder / "recipe.json")

    def checksums(self) -> dict[str, str]:
        """SHA-256 of the files that join all shards, by name; of a finished data set."""
        return _load_json(self.folder / "dataset.json")["sha256"]

    def entities(self) -> EntityList:
        """The entities of `entities.toml`."""
        return load_entities(str(self.entities_file))

    def save_plan_summary(self, summary: PlanSummary) -> None:
        """Record what went into the plan; its presence says that the plan is complete."""
        content = {
            "read": summary.tally.read,
            "dropped": dict(sorted(summary.tally.dropped.items())),
            "rows": summary.rows,
            "captions": [summary.captions[n] for n in range(max(summary.captions, default=-1) + 1)],
        }
        write_text(self.plan_summary, json.dumps(content, indent=2) + "\n")

    def load_plan_summary(self) -> PlanSummary | None:
        """What went into the plan; None where it is still to be made."""
        if not (self.plan_summary.is_file() and self.plan.is_file()):
            return None
        content = _load_json(self.plan_summary)
        tally = Tally(content["read"], Counter(content["dropped"]))
        return PlanSummary(tally, content["rows"], Counter(dict(enumerate(content["captions"]))))

    def complete_shards(self) -> list[ShardStats]:
        """The statistics of all shards that are complete."""
        found = (read_stats(self.folder, number) for number in range(shard_count(self.plan)))
        return [stats for stats in found if stats is not None]

    def summary(self) -> Summary:
        """Counts, from the plan and the shards' statistics."""
        plan = self.load_plan_summary()
        if plan is None:
            raise DataError(f"{self.folder} is no data set, or its build has not got to a plan")
        names = [entity.name for entity in self.entities()]
        summary = Summary(
            str(self.folder),
            plan.tally.read,
            dict(plan.tally.dropped),
            plan.rows,
            shard_count(self.plan),
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
            write_partners(lists, self.folder, recipe["partners"], recipe["seed"])
        summary = asdict(self.summary()) | {"folder": "."}
        present = [name for name in CHECKED if (self.folder / name).is_file()]
        content = {
            "recipe": recipe,
            "summary": summary,
            "sha256": {name: sha256(self.folder / name) for name in present},
        }
        write_text(self.folder / "dataset.json", json.dumps(content, indent=2) + "\n")

    def _join_tables(self) -> pl.Series:
        """Write the index and the failures; return each pair's distinct entities, sorted."""
        schema = pa.schema([field for field in INDEX_SCHEMA if field.name != "status"])
        bad = pa.schema([INDEX_SCHEMA.field(name) for name in ("key", "locator", "status")])
        entities: list[pl.Series] = []
        with (
            replacing(self.folder / INDEX) as index_path,
            replacing(self.folder / FAILURES) as failures_path,
            pq.ParquetWriter(index_path, schema, compression="zstd") as index,
            pq.ParquetWriter(failures_path, bad, compression="zstd") as failures,
        ):
            for number in range(shard_count(self.plan)):
                table = pq.read_table(self.folder / f"{shard_name(number)}.parquet")
                good = pa.compute.equal(table["status"], OK)
                pairs = table.filter(good).select(schema.names)
                index.write_table(pairs.combine_chunks())
                failures.write_table(table.filter(pa.compute.invert(good)).select(bad.names))
                named = pl.DataFrame(pl.from_arrow(pairs.select(["entities"])))["entities"]
                entities.append(named.list.unique().list.sort())
        return pl.concat(entities) if entities else pl.Series(dtype=pl.List(pl.UInt16))


def _load_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path.parent} is no data set: it has no {path.name}") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error})") from error
