"""Where the pairs of a run come from, and how a step's pairs are dealt."""

from collections.abc import Iterable
from dataclasses import dataclass

from ovseg.config.schema import Recipe
from ovseg.data.dataset.index import Numbers, PairIndex, open_index
from ovseg.data.dataset.photos import PhotoOrder, photo_order, split_photos
from ovseg.data.dataset.webdataset import expand
from ovseg.errors import RecipeError
from ovseg.training.feed.sampler import Draw, IndexSampler, Share, steps_per_epoch
from ovseg.training.feed.stream import StreamSampler


@dataclass(frozen=True)
class PairSource:
    """Where pairs come from: an index, or shards to be read as a stream.

    Attributes:
        index: the pairs that are trained on; None for a stream.
        addresses: of the stream's shards.
        fingerprint: changes when the pairs do.
        photos: all pairs, photo by photo, where photos are held out or numbered.
        units: rows of the index that an epoch draws, one a photo; None for all pairs.
    """

    index: PairIndex | None
    addresses: tuple[str, ...]
    fingerprint: str
    photos: PhotoOrder | None = None
    units: Numbers | None = None

    def steps_per_epoch(self, recipe: Recipe, share: Share) -> int:
        """Optimizer steps in an epoch; a stream, whose length nobody knows, has one for the run."""
        if self.index is not None:
            count = len(self.index) if self.units is None else len(self.units)
            return steps_per_epoch(count, share)
        if recipe.schedule.max_steps == 0:
            raise RecipeError(
                "data.shards are read as a stream, whose length is not known: set "
                "schedule.max_steps, or make an index with ovseg build-dataset"
            )
        return recipe.schedule.max_steps

    def sampler(
        self, recipe: Recipe, share: Share, first_step: int, last_step: int
    ) -> Iterable[list[Draw]]:
        """The draws of one process."""
        if self.index is None:
            seed = recipe.train.seed
            return StreamSampler(self.addresses, share, seed, first_step, last_step)
        paired = recipe.loss.mask.enabled and recipe.data.partners == "in-batch"
        return IndexSampler(
            self.index, share, recipe.train.seed, paired, first_step, last_step, self.units
        )


def open_source(recipe: Recipe) -> PairSource:
    """Open what `data.shards` names.

    Raises:
        RecipeError: it names nothing, or folders and tar files at once.
        DataError: something is missing or damaged.
    """
    shards = recipe.data.shards
    if not shards:
        raise RecipeError(
            "data.shards is empty: name the folder that ovseg build-dataset made, as "
            """--set data.shards='["/data/cc4m"]'"""
        )
    tars = [shard for shard in shards if shard.endswith(".tar")]
    if tars and len(tars) < len(shards):
        raise RecipeError("data.shards mixes folders and .tar files: give one kind")
    if tars:
        return _stream(recipe, tuple(expand(tars)))
    index = open_index(shards)
    index.check_shards()
    if recipe.data.partners == "exact" and recipe.loss.mask.enabled:
        index.load_partners()
    if recipe.model.aligned is None and not recipe.data.held_out and not recipe.data.photos:
        return PairSource(index, (), index.fingerprint())
    return _photos(recipe, index)


def _photos(recipe: Recipe, index: PairIndex) -> PairSource:
    """The photos that are trained on, of all."""
    photos = photo_order(index)
    split = split_photos(photos, recipe.data.held_out, recipe.data.photos)
    part = photos.index.take(photos.between(split.first, split.last))
    begins = photos.begins[split.first : split.last] - photos.begins[split.first]
    units = None if recipe.data.captions == "pairs" else begins
    return PairSource(part, (), part.fingerprint(), photos, units)


def _stream(recipe: Recipe, addresses: tuple[str, ...]) -> PairSource:
    if recipe.loss.mask.enabled:
        raise RecipeError(
            "loss.mask needs to know which pairs share an entity, which a stream of .tar files "
            "does not say: make an index with ovseg build-dataset"
        )
    names = "|".join(address.rpartition("/")[2] for address in addresses)
    return PairSource(None, addresses, names)


def share_of(recipe: Recipe, rank: int, world_size: int) -> Share:
    """How a step's pairs are dealt; RecipeError if partners cannot sit side by side."""
    size = recipe.data.batch_size
    if recipe.loss.mask.enabled and recipe.data.partners == "in-batch" and size % 2:
        raise RecipeError(f"data.batch_size {size} is odd: in-batch partners come in twos")
    return Share(size, recipe.data.accumulation, rank, world_size)
