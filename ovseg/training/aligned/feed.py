"""Batches of frozen features: numbers of rows, which the step looks up where the features are.

Letters: B photo of the batch, K caption of a photo, M word of a photo.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ovseg.config.schema import Recipe
from ovseg.data.dataset.index import Numbers
from ovseg.data.dataset.photos import PhotoOrder, Split
from ovseg.data.splitmix import mix
from ovseg.training.batch import Problem
from ovseg.training.feed.sampler import NOTHING, Draw


@dataclass(frozen=True)
class FeatureBatch:
    """Photos of one device with captions, as rows of the feature cache.

    Attributes:
        photo: number of each photo, int64 [B].
        view: which of its views, int64 [B].
        caption: rows of its captions, -1 behind the last, int64 [B, K].
        text: numbers of the captions' texts, equal where the texts are, int64 [B, K].
        words: entities that the photo's captions name, -1 behind the last, int64 [B, M].
        entity: entity that a photo shares with its neighbour (rows 2k and 2k + 1), -1 if none,
            int64 [B].
        asked: whether the caption has an entity that can be masked, bool [B].
        valid: photos that count, bool [B]; of the others there are no features.
        step: of the run, from 0.
        keys: name of each pair in the data set.
        problems: why photos do not count.
    """

    photo: Tensor
    view: Tensor
    caption: Tensor
    text: Tensor
    words: Tensor
    entity: Tensor
    asked: Tensor
    valid: Tensor
    step: int = 0
    keys: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()

    def __len__(self) -> int:
        return len(self.photo)

    def to(self, device: torch.device) -> "FeatureBatch":
        """As it is: rows are looked up from the host."""
        del device
        return self


class FeatureFeed:
    """Makes the batches of draws.

    Args:
        recipe: of the run.
        photos: all pairs, photo by photo.
        split: the photos that are trained on.
        unreadable: why a view of a photo has no features, by view and photo.
    """

    def __init__(
        self,
        recipe: Recipe,
        photos: PhotoOrder,
        split: Split,
        unreadable: dict[tuple[int, int], str],
    ) -> None:
        self.photos = photos
        self.split = split
        self.views = recipe.data.views
        self.captions = recipe.data.captions
        self.unreadable = unreadable
        texts = photos.index.captions()
        _, numbers = np.unique(np.array(texts, dtype=object), return_inverse=True)
        self.text: Numbers = numbers.reshape(-1).astype(np.int64)  # [M]
        self._words: dict[int, Numbers] = {}

    def batches(self, draws: Iterable[list[Draw]], first_step: int) -> Iterator[FeatureBatch]:
        """One for each list of draws, which are rows of the pairs that are trained on."""
        for step, drawn in enumerate(draws, first_step):
            yield self._batch(drawn, step)

    def _batch(self, draws: Sequence[Draw], step: int) -> FeatureBatch:
        begin = int(self.photos.begins[self.split.first])
        rows = np.array([draw.row + begin for draw in draws])
        photo = self.photos.photo_of(rows)
        view = np.array([mix(draw.seed ^ 2) % self.views for draw in draws])
        captions = [self._captions(*each) for each in zip(rows, photo, draws, strict=True)]
        index = self.photos.index
        caption = _padded(captions)
        keys = tuple(index.keys(rows))
        places = zip(view.tolist(), photo.tolist(), strict=True)
        why = [self.unreadable.get(place) for place in places]
        problems = [Problem(key, text) for key, text in zip(keys, why, strict=True) if text]
        return FeatureBatch(
            photo=torch.from_numpy(photo),
            view=torch.from_numpy(view),
            caption=torch.from_numpy(caption),
            text=torch.from_numpy(np.where(caption >= 0, self.text[caption], -1)),
            words=torch.from_numpy(_padded([self.words_of(int(number)) for number in photo])),
            entity=torch.tensor([draw.shared for draw in draws]),
            asked=torch.from_numpy(np.diff(index.offsets)[caption[:, 0]] > 0),
            valid=torch.tensor([not text for text in why]),
            step=step,
            keys=keys,
            problems=tuple(problems),
        )

    def _captions(self, row: int, photo: int, draw: Draw) -> Numbers:
        """The rows of the captions that a step sees of a photo."""
        if self.captions == "pairs":
            return np.array([row])
        own = self.photos.between(photo, photo + 1)
        if self.captions == "one":
            place = mix(draw.seed ^ 1) % len(own)
            return own[place : place + 1]
        return own

    def words_of(self, photo: int) -> Numbers:
        """The entities that the captions of a photo name, each once."""
        if photo not in self._words:
            index, begins = self.photos.index, self.photos.begins
            first, last = index.offsets[begins[photo]], index.offsets[begins[photo + 1]]
            self._words[photo] = np.unique(index.entities[first:last])
        return self._words[photo]


def word_counts(photos: PhotoOrder, split: Split) -> Numbers:
    """How many of the photos that are trained on name each entity, int64 [W]."""
    index = photos.index
    rows = photos.between(split.first, split.last)
    lengths = np.diff(index.offsets)[rows]
    named = index.entities[index.offsets[rows[0]] : index.offsets[rows[-1] + 1]]
    photo = np.repeat(photos.photo_of(rows), lengths)
    distinct = np.unique(np.stack([photo, named], axis=1), axis=0)
    return np.bincount(distinct[:, 1], minlength=len(index.entity_names))


def _padded(rows: Sequence[Numbers]) -> Numbers:
    """Rows of unequal length as a table, -1 behind the last of each; one column at least."""
    table = np.full((len(rows), max(1, *(len(row) for row in rows))), NOTHING)
    for place, row in enumerate(rows):
        table[place, : len(row)] = row
    return table
