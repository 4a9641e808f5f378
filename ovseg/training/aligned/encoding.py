"""Rows of a data set through the frozen towers: photos, captions, masked captions, words.

Letters: B row, N position, A attention head, L token, D E width of a tower, S side in pixels.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ovseg.data.dataset.index import PairIndex
from ovseg.data.dataset.photos import PhotoOrder
from ovseg.data.dataset.shards import UnreadableError
from ovseg.data.images import Pixels, UndecodableError, decode
from ovseg.data.vectors import EncodedRow
from ovseg.distributed import cpu_count
from ovseg.errors import DataError
from ovseg.models.aligned.vision import FrozenTower
from ovseg.models.ovsegmentor.text_encoder import TextEncoder
from ovseg.models.templates import imagenet_templates
from ovseg.models.tokenizer import Tokenizer
from ovseg.training.feed.augmentation import Augmentation
from ovseg.training.feed.collate import mask_mentions, prompt_for
from ovseg.training.feed.sampler import sample_seed
from ovseg.training.step import normalised

TOKENS, HEADS, SENTENCE = "tokens", "heads", "sentence"
_PHOTOS, _TEXTS = 32, 256  # that go through a tower at once


class Encoder(Protocol):
    """Makes vectors of rows, in order."""

    def __call__(self, rows: Sequence[int]) -> Iterator[EncodedRow]: ...


@dataclass(frozen=True)
class PhotoEncoder:
    """One view of each photo through the vision tower.

    Attributes:
        photos: whose rows are photos.
        fields: `tokens` [N, D], `heads` [A, D] or both.
        size: side S of a view.
        augmentation: of the view; None takes the middle of the photo.
        seed: of the augmentation.
        view: which of the photo's views.
    """

    tower: FrozenTower
    photos: PhotoOrder
    fields: tuple[str, ...]
    size: int
    augmentation: Augmentation | None
    seed: int
    view: int
    device: torch.device

    def __call__(self, rows: Sequence[int]) -> Iterator[EncodedRow]:
        with ThreadPoolExecutor(cpu_count()) as pool:
            for start in range(0, len(rows), _PHOTOS):
                views = list(pool.map(self._view, rows[start : start + _PHOTOS]))
                yield from self._encoded(views)

    def _view(self, photo: int) -> Pixels | str:
        """A photo's pixels [S, S, 3], or why they cannot be had."""
        index, row = self.photos.index, int(self.photos.begins[photo])
        try:
            image = decode(index.image(row))
        except UnreadableError as error:
            if error.fatal:
                raise DataError(f"{error}: put the shard back and run again") from error
            return str(error)
        except UndecodableError as error:
            return str(error)
        if self.augmentation is None:
            return middle(image, self.size)
        return self.augmentation(image, sample_seed(self.seed, self.view, photo))

    @torch.no_grad()
    def _encoded(self, views: Sequence[Pixels | str]) -> Iterator[EncodedRow]:
        images = [view for view in views if not isinstance(view, str)]
        found: Iterator[dict[str, np.ndarray]] = iter(())
        if images:
            pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(self.device)
            seen = self.tower.features(normalised(pixels), heads=HEADS in self.fields)
            columns = {TOKENS: seen.tokens, HEADS: seen.heads}
            arrays = {name: _array(columns[name]) for name in self.fields}
            found = ({name: a[row] for name, a in arrays.items()} for row in range(len(images)))
        for view in views:
            yield EncodedRow({}, view) if isinstance(view, str) else EncodedRow(next(found))


def middle(image: Pixels, size: int) -> Pixels:
    """The middle of a photo, uint8 [S, S, 3]: short side to S, bicubic with antialiasing (Pillow).

    The long side is cut down to whole pixels, as Talk2DINO's training images are.
    """
    height, width = image.shape[:2]
    short = min(height, width)
    sides = (max(int(size * width / short), size), max(int(size * height / short), size))
    resized = np.asarray(Image.fromarray(image).resize(sides, Image.Resampling.BICUBIC))
    top, left = round((sides[1] - size) / 2), round((sides[0] - size) / 2)
    return resized[top : top + size, left : left + size]


@dataclass(frozen=True)
class Texts:
    """Texts by row, made when they are asked for.

    Attributes:
        kind: `captions`; `masked`, the captions with their mentions masked; `prompts`, what was
            masked, in a template drawn by the row; or `words`, each entity in each template.
        index: of the pairs, whose rows these are, but for words.
        templates: of words.
        mask: the tokenizer's mask token.
    """

    kind: str
    index: PairIndex
    templates: tuple[str, ...] = ()
    mask: str = ""

    def __len__(self) -> int:
        if self.kind == "words":
            return len(self.index.entity_names) * len(self.templates)
        return len(self.index)

    def __call__(self, row: int) -> str:
        if self.kind == "words":
            word, template = divmod(row, len(self.templates))
            return self.templates[template].format(self.index.entity_names[word])
        pair = self.index.pair(row)
        if self.kind == "captions":
            return pair.caption
        if self.kind == "masked":
            return mask_mentions(pair, self.mask)
        return prompt_for(pair, imagenet_templates(), np.random.default_rng([1, row]))


@dataclass(frozen=True)
class TextEncoding:
    """Texts through the text tower.

    Attributes:
        fields: `sentence` [1, E] or `tokens` [L, E].
    """

    tower: TextEncoder
    tokenizer: Tokenizer
    texts: Texts
    fields: tuple[str, ...]
    device: torch.device

    def __call__(self, rows: Sequence[int]) -> Iterator[EncodedRow]:
        texts = [self.texts(row) for row in rows]
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        found: list[EncodedRow] = [EncodedRow({})] * len(texts)
        for start in range(0, len(order), _TEXTS):  # alike in length: little padding
            places = order[start : start + _TEXTS]
            for place, row in zip(places, self._encoded([texts[p] for p in places]), strict=True):
                found[place] = row
        return iter(found)

    @torch.no_grad()
    def _encoded(self, texts: Sequence[str]) -> Iterator[EncodedRow]:
        tokens = self.tokenizer(texts)
        seen = self.tower(tokens.ids.to(self.device), tokens.mask.to(self.device))
        sentences, by_token = _array(seen.sentence), _array(seen.tokens)
        for row, real in enumerate(tokens.mask.bool().numpy()):
            columns = {SENTENCE: sentences[row : row + 1], TOKENS: by_token[row][real]}
            yield EncodedRow({name: columns[name] for name in self.fields})


def _array(tensor: Tensor | None) -> np.ndarray:
    if tensor is None:
        raise DataError(
            "the vision tower has no attention heads, which loss.contrastive.score asks"
        )
    return tensor.float().cpu().numpy()
