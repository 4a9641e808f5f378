"""The feature cache: what the frozen towers make of a data set, computed once and kept.

Features are kept under a key of everything they depend on: the tower's weights, how it is read, the
views and the data. They are in the order of the photos' hashes, so that a run on fewer photos takes
the beginning of what a longer one has written. Any number of processes, and of runs, write shards
side by side; a shard is there whole or not at all, and one that changed is made again.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch

from ovseg.config.dump import to_json, to_values
from ovseg.config.load import recipe_from_values
from ovseg.config.schema import Recipe
from ovseg.data.dataset.index import open_index
from ovseg.data.dataset.photos import PhotoOrder, Split, photo_order, split_photos
from ovseg.data.vectors import VectorRows, is_complete, shard_count, write_vectors
from ovseg.data.workers import Progress, map_in_processes
from ovseg.errors import DataError
from ovseg.files import cache_folder
from ovseg.models.aligned.aligned_model import AlignedModel
from ovseg.models.aligned.assembly import build_aligned
from ovseg.models.aligned.vision import state_digest
from ovseg.training.aligned.encoding import (
    HEADS,
    SENTENCE,
    TOKENS,
    Encoder,
    PhotoEncoder,
    TextEncoding,
    Texts,
)
from ovseg.training.feed.augmentation import checked_augmentation
from ovseg.training.feed.source import PairSource
from ovseg.training.feed.vocabulary import MaskingTokenizer, build_tokenizer

FORMAT = 1
_PHOTOS, _TEXTS = 128, 4096  # rows of a shard
CAPTIONS, MASKED, PROMPTS, WORDS = "captions", "masked", "prompts", "words"


def view_name(view: int) -> str:
    """What the features of a view are called."""
    return f"view-{view}"


@dataclass(frozen=True)
class FeatureSet:
    """One kind of rows and what is kept of each.

    Attributes:
        name: a view, or a kind of texts.
        key: of all that the features depend on.
        rows: of the whole data set.
        needed: rows of this run, the first ones.
        rows_per_shard: as it says.
        widths: of the fields.
        lengths: vectors of a row by field, for the estimate of space.
    """

    name: str
    key: str
    rows: int
    needed: int
    rows_per_shard: int
    widths: dict[str, int]
    lengths: dict[str, int]

    @property
    def shards(self) -> dict[int, int]:
        """The shards that the run needs, with their rows."""
        size = self.rows_per_shard
        return {
            number: min(size, self.rows - number * size)
            for number in range(shard_count(self.needed, size))
        }

    @property
    def row_bytes(self) -> int:
        """Of a row, an estimate where texts are of unequal length."""
        return sum(2 * self.widths[name] * self.lengths[name] for name in self.widths)

    def folder(self, cache: Path) -> Path:
        """Where its shards are."""
        return cache / f"{self.name}-{self.key[:24]}"


@dataclass(frozen=True)
class CacheNeed:
    """What a run needs of the disk.

    Attributes:
        folder: of the cache.
        total, missing: bytes of all features of the run, and of those that are still to be made.
        photos: views of photos that are still to be encoded.
    """

    folder: str
    total: int
    missing: int
    photos: int


class Features:
    """The features of a run: which there are, where they are, making and reading them.

    Args:
        recipe: of the run.
        model: with its towers' weights, on the device.
        photos: all pairs of the data, photo by photo.
        texts: the tokenizer.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: AlignedModel,
        photos: PhotoOrder,
        texts: MaskingTokenizer,
        device: torch.device,
    ) -> None:
        self.recipe = recipe
        self.model = model
        self.photos = photos
        self.texts = texts
        self.device = device
        self.split: Split = split_photos(photos, recipe.data.held_out, recipe.data.photos)
        self.cache = Path(recipe.data.cache) if recipe.data.cache else cache_folder() / "features"

    @cached_property
    def sets(self) -> dict[str, FeatureSet]:
        """By name."""
        loss = self.recipe.loss
        views = [self._view_set(view) for view in range(self.recipe.data.views)]
        kinds = [CAPTIONS]
        if loss.words.enabled or loss.mask.enabled:
            kinds.append(WORDS)
        if loss.entity.enabled:
            kinds += [MASKED, PROMPTS]
        return {each.name: each for each in [*views, *map(self._text_set, kinds)]}

    @property
    def photo_fields(self) -> tuple[str, ...]:
        """What is kept of a view: talk2dino's loss reads the heads alone."""
        recipe = self.recipe
        heads = recipe.loss.contrastive.enabled and recipe.loss.contrastive.score == "heads"
        positions = (
            not heads
            or recipe.loss.words.enabled
            or recipe.loss.structure.enabled
            or self.model.head.grouping is not None
        )
        return (*((TOKENS,) if positions else ()), *((HEADS,) if heads else ()))

    def _view_set(self, view: int) -> FeatureSet:
        recipe, vision = self.recipe, self.model.vision
        assert recipe.model.aligned is not None
        section = to_values(recipe.model.aligned.vision)
        made_of = {
            "vision": {name: value for name, value in section.items() if name != "digest"},
            "weights": vision.digest,
            "fields": self.photo_fields,
            "view": [view, recipe.data.view_seed if view else 0],
            "augmentation": to_values(recipe.augmentation) if view else {},
        }
        rows, columns = self.grid
        return FeatureSet(
            name=view_name(view),
            key=self._key(made_of),
            rows=len(self.photos),
            needed=self.split.last,
            rows_per_shard=_PHOTOS,
            widths=dict.fromkeys(self.photo_fields, vision.width),
            lengths={TOKENS: rows * columns, HEADS: vision.heads},
        )

    def _text_set(self, kind: str) -> FeatureSet:
        text = to_values(self.recipe.model.text)
        texts = self._texts(kind)
        field = TOKENS if kind == MASKED else SENTENCE
        whole = len(texts)
        made_of = {
            "text": [text["pooling"], text["max_tokens"], text.get("tokenizer", "")],
            "weights": self._text_digest,
            "tokenizer": "" if self.texts.files is None else self.texts.files.to_json(),
            "kind": [kind, texts.mask, texts.templates],
            "words": self.photos.index.entity_names if kind == WORDS else (),
        }
        return FeatureSet(
            name=kind,
            key=self._key(made_of),
            rows=whole,
            needed=whole if kind == WORDS else int(self.photos.begins[self.split.last]),
            rows_per_shard=_TEXTS,
            widths={field: self.model.text.width},
            lengths={field: 16 if kind == MASKED else 1},
        )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the positions of a view."""
        aligned = self.recipe.model.aligned
        assert aligned is not None
        side = aligned.vision.image_size // self.model.vision.patch
        return side, side

    @cached_property
    def _text_digest(self) -> str:
        return state_digest(self.model.text.state_dict())

    @cached_property
    def _data(self) -> str:
        return self.photos.index.fingerprint()

    def _key(self, made_of: dict[str, Any]) -> str:
        described = json.dumps([FORMAT, self._data, made_of], sort_keys=True)
        return hashlib.sha256(described.encode()).hexdigest()

    def _texts(self, kind: str) -> Texts:
        templates = self.recipe.loss.words.templates if kind == WORDS else ()
        mask = self.texts.mask if kind == MASKED else ""
        return Texts(kind, self.photos.index, templates, mask)

    def encoder(self, name: str) -> Encoder:
        """What makes the rows of a set."""
        recipe = self.recipe
        if not name.startswith(view_name(0)[:-1]):
            fields = tuple(self.sets[name].widths)
            return TextEncoding(
                self.model.text, self.texts.tokenizer, self._texts(name), fields, self.device
            )
        assert recipe.model.aligned is not None
        view = int(name.rpartition("-")[2])
        size = recipe.model.aligned.vision.image_size
        return PhotoEncoder(
            tower=self.model.vision,
            photos=self.photos,
            fields=self.photo_fields,
            size=size,
            augmentation=checked_augmentation(recipe, size) if view else None,
            seed=recipe.data.view_seed,
            view=view,
            device=self.device,
        )

    def missing(self, rank: int = 0, world_size: int = 1) -> list[tuple[str, int]]:
        """Set and number of each shard of this process's share that is still to be made."""
        dealt = [(name, number) for name, each in self.sets.items() for number in each.shards]
        found = []
        for name, number in dealt[rank::world_size]:
            made = self.sets[name]
            if not is_complete(made.folder(self.cache), number, made.shards[number]):
                found.append((name, number))
        return found

    def need(self) -> CacheNeed:
        """The space that the run's features take."""
        total = sum(each.row_bytes * sum(each.shards.values()) for each in self.sets.values())
        missing, photos = 0, 0
        for name, number in self.missing():
            rows = self.sets[name].shards[number]
            missing += self.sets[name].row_bytes * rows
            photos += rows if name.startswith("view-") else 0
        return CacheNeed(str(self.cache), total, missing, photos)

    def make(self, progress: Progress, rank: int = 0, world_size: int = 1) -> None:
        """Make this process's share of what is missing, in `data.workers` processes on a CPU.

        Raises:
            DataError: there is no room, or the data cannot be read.
        """
        missing = self.missing(rank, world_size)
        if not missing:
            return
        need = self.need()
        self._check_room(need)
        progress(told(need), 0, None)
        step, done = "encoding by the frozen towers, shards", 0
        progress(step, done, len(missing))
        for _ in self._written(missing):
            done += 1
            progress(step, done, len(missing))

    def _written(self, missing: Sequence[tuple[str, int]]) -> Iterator[None]:
        """Make shards, here or in several processes; yields after each."""
        workers = min(self.recipe.data.workers, len(missing))
        if self.device.type == "cpu" and workers > 1:
            text = to_json(self.recipe)
            jobs = [(text, *shard) for shard in missing]
            yield from map_in_processes(_write_shard, jobs, workers)
            return
        for name, number in missing:
            self.write(name, number)
            yield

    def write(self, name: str, number: int) -> None:
        """Make one shard."""
        made = self.sets[name]
        begin = number * made.rows_per_shard
        rows = range(begin, begin + made.shards[number])
        encoded = self.encoder(name)(rows)
        write_vectors(made.folder(self.cache), number, made.widths, encoded)

    def _check_room(self, need: CacheNeed) -> None:
        self.cache.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.cache).free
        if need.missing > free:
            raise DataError(
                f"{told(need)}, and {free / 1e9:.1f} GB are free: name another folder by "
                "data.cache, or lower data.views"
            )

    def rows(self, name: str, field: str) -> VectorRows:
        """The features of a set, once they are made."""
        made = self.sets[name]
        return VectorRows(made.folder(self.cache), field, made.needed, made.rows_per_shard)


def told(need: CacheNeed) -> str:
    """The need in a sentence."""
    return (
        f"features take {need.total / 1e9:.2f} GB in {need.folder}, of which "
        f"{need.missing / 1e9:.2f} GB are still to be made"
    )


def _write_shard(job: tuple[str, str, int]) -> None:
    recipe, name, number = job
    _features_here(recipe).write(name, number)


@lru_cache(maxsize=1)
def _features_here(text: str) -> Features:
    """Those of a recipe, in a worker process: towers are loaded once."""
    recipe = recipe_from_values(json.loads(text), "recipe")
    torch.set_num_threads(1)
    torch.manual_seed(recipe.train.seed)  # towers with random weights have those of the run
    model = build_aligned(recipe.model, pretrained=True)
    return features_of(recipe, model, torch.device("cpu"))


def features_of(recipe: Recipe, model: AlignedModel, device: torch.device) -> Features:
    """The features that a recipe's training reads, by the towers of a model."""
    index = open_index(recipe.data.shards)
    index.check_shards()
    source = PairSource(index, (), index.fingerprint())
    return Features(recipe, model, photo_order(index), build_tokenizer(recipe, source), device)
