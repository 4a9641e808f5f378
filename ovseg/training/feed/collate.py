"""Draws to batches: reading, decoding, augmenting and tokenising, in the loader's processes.

Letters: B pair, L token, H W pixels.
"""

import signal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ovseg.config.schema import Recipe
from ovseg.data.dataset.index import PairIndex
from ovseg.data.dataset.pairs import Mention, Pair
from ovseg.data.dataset.shards import UnreadableError
from ovseg.data.images import UndecodableError, decode
from ovseg.distributed import deaf_children
from ovseg.models.templates import imagenet_templates
from ovseg.models.tokenizer import Tokenizer
from ovseg.training.batch import Batch, CrossImages, Problem, Questions
from ovseg.training.feed.augmentation import Augmentation, checked_augmentation
from ovseg.training.feed.sampler import NOTHING, Draw
from ovseg.training.feed.source import PairSource
from ovseg.training.feed.vocabulary import MaskingTokenizer

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Wanted:
    """What a batch should hold beside images and captions.

    Attributes:
        questions: masked captions and prompts.
        partners: where cross images come from.
        mask: the tokenizer's mask token.
        templates: of prompts, each with a `{}`.
    """

    questions: bool = True
    partners: str = "none"  # or "exact" or "in-batch"
    mask: str = "[MASK]"
    templates: tuple[str, ...] = ()


@dataclass(frozen=True)
class DecodedPair:
    """A pair after decoding; without pixels, it could not be read."""

    pair: Pair
    pixels: Pixels | None
    problem: Problem | None = None


class Collator:
    """A dataset in torch's sense, whose items are whole batches.

    Args:
        index: of the pairs; None where draws bring their pairs along.
        augmentation: of images.
        tokenizer: of all texts; each kind of text is padded to its longest in the batch.
        wanted: what else a batch should hold.
    """

    def __init__(
        self,
        index: PairIndex | None,
        augmentation: Augmentation,
        tokenizer: Tokenizer,
        wanted: Wanted,
    ) -> None:
        self.index = index
        self.augmentation = augmentation
        self.tokenizer = tokenizer
        self.wanted = wanted

    def __getitems__(self, draws: Sequence[Draw]) -> Batch:
        """Make the batch of these draws; torch's loader calls this by its name."""
        samples = [self._sample(draw) for draw in draws]
        valid = torch.tensor([sample.pixels is not None for sample in samples])
        filled = _filled(samples, self.augmentation.size)
        pairs = [sample.pair for sample in filled]
        cross, problems = self._cross(draws, samples, valid)
        own = (sample.problem for sample in samples)
        return Batch(
            images=_stack([sample.pixels for sample in filled]),
            caption=self.tokenizer([pair.caption for pair in pairs]),
            valid=valid,
            questions=self._questions(pairs, draws) if self.wanted.questions else None,
            cross=cross,
            keys=tuple(sample.pair.key for sample in samples),
            problems=(*(problem for problem in own if problem), *problems),
        )

    def _sample(self, draw: Draw) -> DecodedPair:
        if draw.raw is not None:
            pair = draw.raw.pair
            return self._decoded(pair, draw.raw.image, draw.seed)
        assert self.index is not None
        return self._read(draw.row, draw.seed)

    def _read(self, row: int, seed: int) -> DecodedPair:
        assert self.index is not None
        pair = self.index.pair(row)
        try:
            data = self.index.image(row)
        except UnreadableError as error:
            return DecodedPair(pair, None, Problem(pair.key, str(error), error.fatal))
        return self._decoded(pair, data, seed)

    def _decoded(self, pair: Pair, data: bytes, seed: int) -> DecodedPair:
        try:
            return DecodedPair(pair, self.augmentation(decode(data), seed))
        except UndecodableError as error:
            return DecodedPair(pair, None, Problem(pair.key, str(error)))

    def _questions(self, pairs: Sequence[Pair], draws: Sequence[Draw]) -> Questions:
        masked = [mask_mentions(pair, self.wanted.mask) for pair in pairs]
        prompts = [
            prompt_for(pair, self.wanted.templates, np.random.default_rng([1, draw.seed]))
            for pair, draw in zip(pairs, draws, strict=True)
        ]
        return Questions(
            masked=self.tokenizer(masked),
            prompt=self.tokenizer(prompts),
            present=torch.tensor([bool(pair.mentions) for pair in pairs]),
        )

    def _cross(
        self, draws: Sequence[Draw], samples: Sequence[DecodedPair], valid: Tensor
    ) -> tuple[CrossImages | None, list[Problem]]:
        if self.wanted.partners == "in-batch":
            return self._neighbours(draws, valid), []
        if self.wanted.partners == "exact":
            return self._partners(draws, samples)
        return None, []

    def _neighbours(self, draws: Sequence[Draw], valid: Tensor) -> CrossImages:
        """Rows 2k and 2k + 1 are each other's cross images."""
        partner = torch.arange(len(draws)) ^ 1
        shared = torch.tensor([draw.shared for draw in draws])
        return CrossImages(
            images=None,
            partner=partner,
            entity=self.tokenizer([self._entity(draw.shared) for draw in draws]),
            present=(shared != NOTHING) & valid[partner],
        )

    def _partners(
        self, draws: Sequence[Draw], samples: Sequence[DecodedPair]
    ) -> tuple[CrossImages, list[Problem]]:
        """Partners as drawn when the data set was built, one of each pair's at random."""
        assert self.index is not None
        found = [self.index.partner(draw.row, draw.seed >> 32) for draw in draws]
        crossed = [
            sample if partner is None else self._read(partner[0], draw.seed ^ 1)
            for draw, sample, partner in zip(draws, samples, found, strict=True)
        ]
        there = [
            p is not None and c.pixels is not None for p, c in zip(found, crossed, strict=True)
        ]
        cross = CrossImages(
            images=_stack([sample.pixels for sample in _filled(crossed, self.augmentation.size)]),
            partner=torch.arange(len(draws)),
            entity=self.tokenizer([self._entity(p[1] if p else NOTHING) for p in found]),
            present=torch.tensor(there),
        )
        theirs = zip(crossed, found, strict=True)
        return cross, [c.problem for c, partner in theirs if partner and c.problem]

    def _entity(self, number: int) -> str:
        assert self.index is not None
        return self.index.entity_names[number] if number != NOTHING else ""


def _filled(samples: Sequence[DecodedPair], size: int) -> list[DecodedPair]:
    """Every row with an image: a neighbour's, where its own could not be read."""
    good = [sample for sample in samples if sample.pixels is not None]
    blank = np.zeros((size, size, 3), np.uint8)
    if not good:
        return [DecodedPair(sample.pair, blank) for sample in samples]
    return [
        sample if sample.pixels is not None else good[row % len(good)]
        for row, sample in enumerate(samples)
    ]


def _stack(images: Sequence[Pixels | None]) -> Tensor:
    """uint8 [B, 3, H, W], whose memory stays in the order of the pixels."""
    present = [image for image in images if image is not None]
    return torch.from_numpy(np.stack(present)).permute(0, 3, 1, 2)


def build_collator(recipe: Recipe, source: PairSource, texts: MaskingTokenizer) -> Collator:
    """What turns draws into batches."""
    wanted = Wanted(
        questions=recipe.loss.entity.enabled,
        partners=recipe.data.partners if recipe.loss.mask.enabled else "none",
        mask=texts.mask,
        templates=imagenet_templates() if recipe.loss.entity.enabled else (),
    )
    augmentation = checked_augmentation(recipe, recipe.model.image.image_size)
    return Collator(source.index, augmentation, texts.tokenizer, wanted)


PLAIN_PROMPT = "a photo of {}"


def mask_mentions(pair: Pair, mask: str) -> str:
    """The caption with every mention replaced by `mask`."""
    parts, end = [], 0
    for mention in apart(pair.mentions):
        parts += [pair.caption[end : mention.start], mask]
        end = mention.end
    return "".join([*parts, pair.caption[end:]])


def apart(mentions: Sequence[Mention]) -> list[Mention]:
    """Mentions in the order of the text, without those that begin inside another."""
    kept: list[Mention] = []
    for mention in sorted(mentions, key=lambda each: each.start):
        if not kept or mention.start >= kept[-1].end:
            kept.append(mention)
    return kept


def prompt_for(pair: Pair, templates: Sequence[str], choose: np.random.Generator) -> str:
    """`a photo of dog and frisbee`: each masked entity once, in a template drawn at random.

    Templates have a `{}`; an empty pair, which no loss reads, has the plain one without a name.
    """
    names = dict.fromkeys(mention.entity for mention in apart(pair.mentions))
    template = templates[int(choose.integers(len(templates)))] if templates else PLAIN_PROMPT
    return template.format(" and ".join(names))


_AHEAD = 4  # batches that each worker makes before they are needed


def load_batches(
    collator: Collator, sampler: Iterable[list[Draw]], workers: int, device: torch.device
) -> Iterator[Batch]:
    """The sampler's batches, in its order whatever the number of workers; still on the host."""
    loader: DataLoader[Any] = DataLoader(
        cast(Any, collator),  # whole batches by __getitems__ are all the loader asks it for
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=device.type == "cuda",
        prefetch_factor=_AHEAD if workers else None,
        worker_init_fn=_prepare_worker,
        # Draws nothing from torch's generator, whose state belongs to the training.
        generator=torch.Generator(),
    )
    with deaf_children():
        return iter(loader)


def _as_it_is(batch: Any) -> Any:
    """The collator's items are batches already."""
    return batch


def _prepare_worker(number: int) -> None:
    """One thread each; signals meant for the run are left to the process that can save it."""
    del number
    cv2.setNumThreads(0)
    for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
