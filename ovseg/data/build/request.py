"""From the recipe of a data set to the data set: its source found, its options made, then built."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ovseg.config.dataset import KIND, DatasetRecipe
from ovseg.config.load import check, load, recipe_names
from ovseg.data.build.engine import Engine
from ovseg.data.build.pipeline import (
    BuildOptions,
    EntityOptions,
    build_from_source,
    choose_and_match,
)
from ovseg.data.build.sources import KNOWN, CaptionSource, Columns, resolve_source
from ovseg.data.build.tagging import Tagger, TaggerAgreement, measure_agreement
from ovseg.data.dataset.entities import PAPER, load_entities
from ovseg.data.dataset.folder import DatasetSummary, ImageOptions
from ovseg.data.dataset.plan import Tally
from ovseg.data.guard import FetchOptions
from ovseg.data.store import Address
from ovseg.data.workers import Progress, silent


@dataclass(frozen=True)
class DatasetPlan:
    """What a recipe amounts to: captions read, set aside by reason and matched, and by entity.

    `disk_bytes` is the disk need if every image can be had.
    """

    captions_read: int
    captions_dropped: dict[str, int]
    captions_matched: int
    disk_bytes: int
    entity_captions: dict[str, int]


def load_request(source: str | Path, changes: Sequence[str] = ()) -> DatasetRecipe:
    """The recipe that `source` names, or one for the source that it is.

    Args:
        source: a TOML file, the name of a recipe that ships with ovseg, such as `flickr8k`, or
            what `source.name` may hold: `cc12m`, a table, a folder.
        changes: `section.key=value` each, in TOML's syntax.

    Raises:
        RecipeError: with one problem per mistake.
    """
    name = str(source)
    shipped = name in recipe_names(KIND) and name not in KNOWN and not Path(name).exists()
    if shipped or name.endswith(".toml"):
        return load(DatasetRecipe, name, changes, KIND)
    return check(DatasetRecipe, {"source": {"name": name}}, "the recipe", changes)


def build_dataset(
    recipe: DatasetRecipe,
    address: Address,
    part: tuple[int, int] = (1, 1),
    retry_failures: bool = False,
    progress: Progress = silent,
) -> DatasetSummary:
    """Build, or go on building, what a recipe says; see `ovseg.build_dataset`."""
    options = _options(recipe, part, retry_failures)
    return build_from_source(_source(recipe, progress), address, options, progress)


def plan_dataset(recipe: DatasetRecipe, progress: Progress = silent) -> DatasetPlan:
    """Read and match everything and write nothing."""
    options = _options(recipe)
    entities, found = choose_and_match(_source(recipe, progress), options, progress)
    return DatasetPlan(
        captions_read=found.tally.read,
        captions_dropped=dict(found.tally.dropped),
        captions_matched=found.rows,
        disk_bytes=options.estimated_bytes(found.rows, found.images),
        entity_captions={each.name: found.captions[n] for n, each in enumerate(entities)},
    )


def agreement_on(
    recipe: DatasetRecipe, advance: Callable[[int], None] | None = None
) -> TaggerAgreement:
    """How far matching by form agrees with a tagger on a recipe's captions and entities.

    `advance` hears of every caption that was tagged.
    """
    source = _source(recipe, silent)
    entities = load_entities(recipe.entities.source or PAPER)
    tagger = Tagger(recipe.entities.pipeline)
    return measure_agreement(source.chunks(Tally()), entities, tagger, advance)


def _source(recipe: DatasetRecipe, progress: Progress) -> CaptionSource:
    wanted = recipe.source
    columns = Columns(wanted.format, wanted.url_column, wanted.caption_columns, wanted.header)

    def download(here: int, total: int | None) -> None:
        progress(f"downloading the captions of {wanted.name}, bytes", here, total)

    images = Path(wanted.images) if wanted.images else None
    return resolve_source(wanted.name, wanted.captions, columns, images, download)


def _options(
    recipe: DatasetRecipe, part: tuple[int, int] = (1, 1), retry_failures: bool = False
) -> BuildOptions:
    entities, engine, build = recipe.entities, recipe.engine, recipe.build
    nouns = Path(entities.visual_nouns) if entities.visual_nouns else None
    return BuildOptions(
        entities=EntityOptions(**entities.model_dump(exclude={"visual_nouns"}), visual_nouns=nouns),
        image=ImageOptions(**recipe.image.model_dump()),
        fetch=FetchOptions(**recipe.fetch.model_dump()),
        engine=Engine(engine.kind, engine.workers, engine.ray_address),
        rows_per_shard=build.pairs_per_shard,
        partners=build.partners,
        seed=build.seed,
        part=part,
        retry_failures=retry_failures,
    )
