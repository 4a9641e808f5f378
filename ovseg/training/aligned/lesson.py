"""One step of an aligned model: all losses on the features of the frozen towers.

Letters: B photo of this process, I photo of all processes, T caption, K caption of a photo, R
region (a position, or a group where the model groups), N position, A attention head, W word of the
batch, P text of a word, L token, D E widths of the towers, C embedding width.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ovseg.config.losses import ContrastiveLossConfig
from ovseg.config.schema import Recipe
from ovseg.distributed import gather_rows
from ovseg.losses.contrastive import contrastive_loss
from ovseg.losses.mask import relevance_of
from ovseg.losses.matching import matching_loss, sigmoid_loss
from ovseg.losses.neighbours import neighbourhood_loss
from ovseg.losses.pooling import chosen_heads, pooled, position_scores, unit
from ovseg.losses.words import frequency_offsets, surely_absent
from ovseg.models.aligned.head import AlignedHead, FeatureGroupEncoder
from ovseg.models.ovsegmentor.image_encoder import EncodedImage
from ovseg.models.ovsegmentor.text_encoder import EncodedText
from ovseg.training.aligned.feed import FeatureBatch
from ovseg.training.aligned.tables import FeatureTable
from ovseg.training.step import (
    LossWeights,
    Scale,
    StepResult,
    groups_mask_loss,
    loss_weights_of,
    step_result,
    unscaled,
)


@dataclass(frozen=True)
class Tables:
    """The features that a run's losses read; None where they read none.

    Attributes:
        positions, heads: of photos, [N, D] and [A, D] of each view.
        captions, prompts: sentences, [1, E].
        masked: tokens of the masked captions, [L, E].
        words: sentences of words, float [W, P, E] on the device.
        word_counts: photos that name each word, int64 [W].
        grid: rows and columns of the positions.
    """

    positions: FeatureTable | None
    heads: FeatureTable | None
    captions: FeatureTable
    prompts: FeatureTable | None
    masked: FeatureTable | None
    words: Tensor | None
    word_counts: Tensor
    grid: tuple[int, int]


@dataclass(frozen=True)
class SeenPhotos:
    """What the head makes of photos.

    Attributes:
        original: mean of the tower's positions, float [B, D]; None where only heads are kept.
        regions: embeddings of positions or groups, [B, R, C], likewise.
        image: embedding of the photo as a whole, [B, C].
        heads: embeddings of the heads, [B, A, C], or None.
        grouped: the groups, where the model has some.
    """

    original: Tensor | None
    regions: Tensor | None
    image: Tensor
    heads: Tensor | None
    grouped: EncodedImage | None


@dataclass(frozen=True)
class Said:
    """Captions of the batch.

    Attributes:
        features: of the text tower, float [T, E].
        embedded: by the head, [T, C].
        photo: the photo of each, as a row of the batch, int64 [T].
        number: equal where texts are, int64 [T].
    """

    features: Tensor
    embedded: Tensor
    photo: Tensor
    number: Tensor


def see_photos(
    head: AlignedHead,
    positions: Tensor | None,
    heads: Tensor | None,
    grid: tuple[int, int],
    some: int = 0,
) -> SeenPhotos:
    """Photos as the head embeds them, from the features of their positions and heads.

    Args:
        some: look at so many positions of each photo, drawn; 0 looks at all.
    """
    by_head = None if heads is None else head.embed_positions(heads)
    if positions is None:
        assert by_head is not None
        return SeenPhotos(None, None, unit(by_head).mean(dim=1), by_head, None)
    original = positions.mean(dim=1)
    if head.grouping is not None:
        grouped = head.group(positions, grid)
        regions = head.embed_groups(grouped.groups)  # [B, G, C]
        return SeenPhotos(original, regions, unit(regions).mean(dim=1), by_head, grouped)
    seen = _drawn_positions(positions, some) if some else positions
    regions = head.embed_positions(seen)  # [B, N, C]
    return SeenPhotos(original, regions, head.embed_image(seen, regions), by_head, None)


def _drawn_positions(positions: Tensor, some: int) -> Tensor:
    """So many positions of each photo, [B, N, D] to [B, some, D]."""
    order = torch.rand(positions.shape[:2], device=positions.device).argsort(dim=1)[:, :some]
    return positions.gather(1, order[..., None].expand(-1, -1, positions.shape[2]))


def caption_scores(
    seen: SeenPhotos, captions: Tensor, config: ContrastiveLossConfig, own: Tensor | None = None
) -> Tensor:
    """How well each caption fits each photo, cosines in -1..1, float [B, T].

    Args:
        captions: embeddings, float [T, C].
        own: each photo's own caption, [B, C], which chooses the head that all captions are compared
            with; without it every caption takes the head that it fits best.
    """
    if config.score == "mean" or (config.score != "heads" and seen.regions is None):
        return unit(seen.image) @ unit(captions).T
    if config.score == "heads":
        assert seen.heads is not None
        if own is None:
            return position_scores(seen.heads, captions).amax(dim=-1)
        return unit(chosen_heads(seen.heads, own)) @ unit(captions).T
    assert seen.regions is not None
    return pooled(position_scores(seen.regions, captions), config.score, config.sharpness)


class AlignedStep:
    """Computes losses and accumulates gradients in the parameters of `head`.

    Args:
        head: in training mode.
        momentum: the grouping of cross images; needed where the mask loss is on.
        tables: the features.
        recipe: of the run.
        precision: dtype of the head's matrix products; float32 leaves autocast off.
        rank, world_size: this process and how many there are.
    """

    def __init__(
        self,
        head: AlignedHead,
        momentum: FeatureGroupEncoder | None,
        tables: Tables,
        recipe: Recipe,
        device: torch.device,
        precision: torch.dtype = torch.float32,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.head = head
        self.momentum = momentum
        self.tables = tables
        self.loss = recipe.loss
        self.noise = recipe.augmentation.text_noise
        self.positions = recipe.data.positions
        self.weights: LossWeights = loss_weights_of(recipe.loss)
        self.device = device
        self.precision = precision
        self.rank = rank
        self.world_size = world_size
        strength = recipe.loss.words.frequency
        self.offsets = frequency_offsets(tables.word_counts, strength).to(device)

    def __call__(self, parts: Sequence[FeatureBatch], scale: Scale = unscaled) -> StepResult:
        """Add the gradients of a batch to the head's and return its losses.

        Args:
            parts: one, the batch of this process; equally many photos in every process.
            scale: multiplies what gradients are computed of, against float16's underflow.
        """
        (batch,) = parts
        valid = batch.valid.to(self.device)
        with self._autocast():
            seen = self.see(batch)
            said = self._hear(batch)
        zero = seen.image.new_zeros((), dtype=torch.float32)
        loss = self.loss
        contrastive = self._contrast(seen, said, valid) if self.weights.contrastive else zero
        captions = self._captions(seen, said, valid) if loss.captions.enabled else zero
        words = self._words(batch, seen, valid) if loss.words.enabled else zero
        grouped = seen.grouped if self.weights.entity else None
        entity = zero if grouped is None else self.entities(batch, grouped, valid)
        mask = self._masks(batch, seen, valid) if self.weights.mask else zero
        structure = self._structure(seen, said) if loss.structure.enabled else zero
        total = (
            self.weights.contrastive * contrastive
            + loss.captions.weight * captions
            + loss.words.weight * words
            + self.weights.entity * entity
            + self.weights.mask * mask
            + self._structure_weight(batch.step) * structure
        )
        scale(total).backward()
        soft = None if seen.grouped is None else seen.grouped.binding.soft.detach()
        losses = (total, contrastive, entity, mask, captions, words, structure)
        return step_result(losses, soft)

    def see(self, batch: FeatureBatch) -> SeenPhotos:
        """The photos of a batch, as the head makes them of their features."""
        tables = self.tables
        positions = heads = None
        if tables.positions is not None:
            positions = tables.positions.take(batch.photo, batch.view)
        if tables.heads is not None:
            heads = tables.heads.take(batch.photo, batch.view)
        return see_photos(self.head, positions, heads, tables.grid, self.positions)

    def _hear(self, batch: FeatureBatch) -> Said:
        there = batch.caption >= 0  # [B, K]
        photo = there.nonzero()[:, 0]
        features = self.tables.captions.take(batch.caption[there])[:, 0]  # [T, E]
        return Said(
            features=features,
            embedded=self.head.embed_text_features(features, self.noise),
            photo=photo.to(self.device),
            number=batch.text[there].to(self.device),
        )

    def _contrast(self, seen: SeenPhotos, said: Said, valid: Tensor) -> Tensor:
        config = self.loss.contrastive
        first = _firsts(said.photo, len(valid))
        own = said.embedded[first]  # [B, C]
        if config.form == "talk2dino":
            image = seen.image if seen.heads is None else chosen_heads(seen.heads, own)
            ranks = (self.rank, self.world_size)
            loss = contrastive_loss(own, image, self.head.scale, valid, *ranks)
            return loss / len(valid) ** 2
        captions = self._gather(said.embedded.float())
        scores = self._gather(caption_scores(seen, captions, config, own))  # [I, T]
        logits = self.head.image_scale * scores
        positive, counted = self._answers(said, valid)
        if config.form == "sigmoid":
            return sigmoid_loss(logits, positive, self.head.bias, counted)
        return matching_loss(logits, positive, counted)

    def _captions(self, seen: SeenPhotos, said: Said, valid: Tensor) -> Tensor:
        config = self.loss.captions
        assert seen.regions is not None
        captions = self._gather(said.embedded.float())
        scores = pooled(position_scores(seen.regions, captions), config.pooling, config.sharpness)
        return matching_loss(
            self.head.caption_scale * self._gather(scores), *self._answers(said, valid)
        )

    def _answers(self, said: Said, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Captions that belong to photos, and those that surely do not, bool [I, T] each."""
        owner = self._gather(said.photo + self.rank * len(valid))
        good = self._gather(valid)
        positive = owner[None] == torch.arange(len(good), device=self.device)[:, None]
        counted = ~_same_text(positive, self._gather(said.number))
        return positive & good[:, None], counted & good[:, None] & good[owner][None]

    def _gather(self, rows: Tensor) -> Tensor:
        """Rows of all processes."""
        return gather_rows(rows, self.world_size)

    def _words(self, batch: FeatureBatch, seen: SeenPhotos, valid: Tensor) -> Tensor:
        config, gather = self.loss.words, self._gather
        assert seen.regions is not None and self.tables.words is not None
        named = _named(batch.words, len(self.offsets)).to(self.device)  # [B, vocabulary]
        named = gather((named & valid[:, None]).float()) > 0
        # Drawn on the host, alike in every process.
        generator = torch.Generator().manual_seed(batch.step)
        used = _some(named.any(dim=0).nonzero()[:, 0], config.most, generator)  # [W]
        present = named[:, used]
        features = _one_text(self.tables.words[used], generator)  # [W, E]
        with self._autocast():
            words = self.head.embed_text_features(features, self.noise)
        scores = position_scores(seen.regions, words)  # [B, W, R]
        scores = gather(pooled(scores, config.pooling, config.sharpness))  # [I, W]
        counted = surely_absent(
            present, scores, features, config.absent, config.most_alike, config.left_out
        )
        counted = counted & gather(valid)[:, None]
        offsets = self.head.word_offsets(unit(words)) + self.offsets[used]
        logits = self.head.scale * scores + offsets
        if config.form == "sigmoid":
            return sigmoid_loss(logits, present, self.head.bias, counted)
        return matching_loss(logits, present, counted, by_answer=True)

    def _structure(self, seen: SeenPhotos, said: Said) -> Tensor:
        config, gather = self.loss.structure, self._gather
        assert seen.original is not None
        parts = ((seen.original, seen.image), (said.features, said.embedded))
        kept = [
            neighbourhood_loss(gather(x), gather(z.float()), config.temperature, config.levels)
            for x, z in parts
        ]
        return kept[0] + kept[1]

    def _structure_weight(self, step: int) -> float:
        config = self.loss.structure
        if not config.enabled:
            return 0.0
        return config.weight * min(1.0, step / max(config.rising_steps, 1))

    def entities(self, batch: FeatureBatch, grouped: EncodedImage, valid: Tensor) -> Tensor:
        """Masked entity completion from the groups of the photos, float []."""
        tables, head = self.tables, self.head
        assert tables.masked is not None and tables.prompts is not None
        rows = batch.caption[:, 0]
        tokens, there = tables.masked.take_texts(rows)
        prompts = tables.prompts.take(rows)[:, 0]
        with self._autocast():
            masked = EncodedText(tokens[:, 0], tokens, there)
            answer = head.embed_answer(head.complete_entities(masked, grouped))
            prompt = head.embed_text_features(prompts, self.noise)
        counted = valid & batch.asked.to(self.device)  # without an entity, nothing to complete
        return contrastive_loss(answer, prompt, head.scale, counted, self.rank, self.world_size)

    def _masks(self, batch: FeatureBatch, seen: SeenPhotos, valid: Tensor) -> Tensor:
        tables = self.tables
        assert tables.positions is not None and tables.words is not None
        assert seen.grouped is not None and seen.regions is not None
        assert self.momentum is not None
        partner = torch.arange(len(batch), device=self.device) ^ 1
        entity = batch.entity.to(self.device)
        present = (entity >= 0) & valid & valid[partner]
        with torch.no_grad(), self._autocast():
            features = tables.positions.take(batch.photo, batch.view)
            cross = self.momentum(self.head.prepared(features), tables.grid).binding
            word = self.head.embed_text_features(tables.words[entity.clamp_min(0), 0])
        relevance = relevance_of(seen.regions.detach().float(), word.float())
        crossed = replace(cross, query=cross.query[partner], key=cross.key[partner])
        query = seen.grouped.binding.query
        return groups_mask_loss(
            query, crossed, relevance, tables.grid, self.weights, present, present
        )

    def _autocast(self) -> AbstractContextManager:
        if self.precision == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.precision)


def _firsts(owner: Tensor, count: int) -> Tensor:
    """Of ascending owners, the place of each owner's first, int64 [count]."""
    return torch.searchsorted(owner, torch.arange(count, device=owner.device))


def _same_text(positive: Tensor, number: Tensor) -> Tensor:
    """Captions whose text is that of a right answer, bool [I, T]: no wrong answers for certain."""
    same = (number[:, None] == number[None]).float()  # [T, T]
    return positive.float() @ same > 0


def _some(numbers: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """At most so many of the numbers, drawn."""
    if len(numbers) <= most:
        return numbers
    return numbers[torch.randperm(len(numbers), generator=generator)[:most].to(numbers.device)]


def _one_text(words: Tensor, generator: torch.Generator) -> Tensor:
    """One of the texts of each word, [W, P, E] to [W, E]."""
    chosen = torch.randint(words.shape[1], (len(words),), generator=generator)
    return words[torch.arange(len(words)), chosen.to(words.device)]


def _named(words: Tensor, count: int) -> Tensor:
    """Which entities each photo's captions name, bool [B, vocabulary], from [B, M]."""
    table = torch.zeros(len(words), count + 1, dtype=torch.bool)
    return table.scatter_(1, words.where(words >= 0, count), True)[:, :count]
