"""One training step's losses and gradients, however many parts its batch comes in.

A contrastive batch that does not fit the memory comes in parts. Their features are computed without
a graph first; the losses of the whole batch then give each feature its gradient; and each part is
encoded once more, with the same noise, to send those gradients on to the encoders (gradient
caching, Gao et al. 2021). The projectors see the whole batch at once, so that even BatchNorm's
statistics are those of the large batch.

Letters: A pair of the whole batch, B pair of a part, G group, N patch, D image width, E text width,
F width of the entity decoder, C embedding width.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ovseg.config.losses import LossConfig
from ovseg.distributed import mean_over_processes
from ovseg.losses.contrastive import contrastive_loss
from ovseg.losses.mask import mask_consistency_loss, relevance_of
from ovseg.models.ovsegmentor.binding import Binding
from ovseg.models.ovsegmentor.image_encoder import EncodedImage, ImageEncoder
from ovseg.models.ovsegmentor.network import OVSegmentor
from ovseg.models.ovsegmentor.predictor import IMAGENET_MEAN, IMAGENET_STD
from ovseg.models.ovsegmentor.text_encoder import EncodedText
from ovseg.models.tokenizer import Tokens
from ovseg.training.batch import Batch, CrossImages
from ovseg.training.rng import rng_state, set_rng_state

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

Scale = Callable[[Tensor], Tensor]
"""What multiplies a loss before its gradients are computed, such as `GradScaler.scale`."""


@dataclass(frozen=True)
class LossWeights:
    """Which losses train the model, by their weights; a weight of 0 switches one off.

    Attributes:
        mask_images: the number of images whose summed mask loss `mask` is the weight of. The
            reference sums over a device's batch of 128; here the mean over the whole batch is
            multiplied by it, so that the loss does not depend on how a batch is spread.
        threshold, trained_groups, smoothing, resolution: of `mask_consistency_loss`.
    """

    contrastive: float = 1.0
    entity: float = 1.0
    mask: float = 0.0
    mask_images: int = 128
    threshold: float = 0.6
    trained_groups: float = 0.5
    smoothing: float = 1.0
    resolution: int = 224


@dataclass(frozen=True)
class StepResult:
    """What a step computed, without gradients.

    Attributes:
        total, contrastive, entity, mask, captions, words, structure: losses, float []; the mean
            over processes is the batch's. Those that are switched off are 0.
        assignment: soft assignment of patches to groups, of the last part, float [B, G, N]; None
            for models without groups.
    """

    total: Tensor
    contrastive: Tensor
    entity: Tensor
    mask: Tensor
    captions: Tensor
    words: Tensor
    structure: Tensor
    assignment: Tensor | None


def step_result(losses: Sequence[Tensor], assignment: Tensor | None) -> StepResult:
    """Losses in the order of the attributes, without their gradients."""
    total, contrastive, entity, mask, *others = (loss.detach() for loss in losses)
    captions, words, structure = others
    return StepResult(total, contrastive, entity, mask, captions, words, structure, assignment)


@dataclass(frozen=True)
class Features:
    """What the losses of the whole batch need of each pair; None where they do not need it.

    Attributes:
        groups: float [A, G, D].
        caption: sentence feature, float [A, E].
        answer: the entity decoder's first token, float [A, F].
        prompt: sentence feature of the prompt, float [A, E].
    """

    groups: Tensor
    caption: Tensor | None
    answer: Tensor | None
    prompt: Tensor | None

    def all(self) -> tuple[Tensor | None, ...]:
        """In the order of the attributes."""
        return self.groups, self.caption, self.answer, self.prompt

    def map(self, change: Callable[[Tensor], Tensor]) -> "Features":
        """The same with every feature changed."""
        caption, answer, prompt = (None if x is None else change(x) for x in self.all()[1:])
        return Features(change(self.groups), caption, answer, prompt)


def joined(parts: Sequence[Features]) -> Features:
    """The features of all parts, one after the other."""

    def column(tensors: Sequence[Tensor | None]) -> Tensor | None:
        present = [tensor for tensor in tensors if tensor is not None]
        return torch.cat(present) if present else None

    _, *texts = zip(*(part.all() for part in parts), strict=True)
    return Features(torch.cat([part.groups for part in parts]), *map(column, texts))


@dataclass(frozen=True)
class EncodedPart:
    """A part after the encoders."""

    image: EncodedImage
    features: Features


@dataclass(frozen=True)
class _PairLosses:
    """The losses that compare all pairs of the batch, float [], with gradients."""

    total: Tensor
    contrastive: Tensor
    entity: Tensor


def unscaled(loss: Tensor) -> Tensor:
    """The loss itself."""
    return loss


def normalised(images: Tensor) -> Tensor:
    """uint8 images [B, 3, H, W] as the encoder takes them: ImageNet's mean and deviation, float."""
    channels = images.float().unbind(dim=1)
    # Channel by channel, so that no tensor of constants has to be copied to the device each time.
    statistics = zip(channels, IMAGENET_MEAN, IMAGENET_STD, strict=True)
    return torch.stack([(x - mean) / deviation for x, mean, deviation in statistics], dim=1)


class TrainingStep:
    """Computes losses and accumulates gradients in the parameters of `model`.

    Args:
        model: in training mode.
        momentum: the encoder of cross images; needed where `weights.mask` is above 0.
        weights: of the losses.
        precision: dtype of the encoders' matrix products; float32 leaves autocast off.
        rank, world_size: this process and how many there are.
        normalise: makes of uint8 images [B, 3, H, W] what the image encoders take.
    """

    def __init__(
        self,
        model: OVSegmentor,
        momentum: ImageEncoder | None,
        weights: LossWeights,
        precision: torch.dtype = torch.float32,
        rank: int = 0,
        world_size: int = 1,
        normalise: Callable[[Tensor], Tensor] = normalised,
    ) -> None:
        self.model = model
        self.momentum = momentum
        self.weights = weights
        self.precision = precision
        self.rank = rank
        self.world_size = world_size
        self.normalise = normalise

    def __call__(self, parts: Sequence[Batch], scale: Scale = unscaled) -> StepResult:
        """Add the gradients of a batch to the model's and return its losses.

        With several processes, the mean of their gradients is that of the batch they share.

        Args:
            parts: the batch of this process, on its device; equally many pairs in every process.
            scale: multiplies what gradients are computed of, against float16's underflow.
        """
        if len(parts) == 1:
            return self._at_once(parts[0], scale)
        return self._in_parts(parts, scale)

    def _at_once(self, part: Batch, scale: Scale) -> StepResult:
        encoded = self._encode(part)
        losses = self._pair_losses(encoded.features, [part])
        mask = self._mask_loss(part, encoded, self._relevance(encoded.features, [part]), [part])
        scale(losses.total + self.weights.mask * mask).backward()
        return self._result(losses, mask, encoded)

    def _in_parts(self, parts: Sequence[Batch], scale: Scale) -> StepResult:
        device = parts[0].images.device
        states, seen = [], []
        for part in parts:
            states.append(rng_state(device))
            with torch.no_grad():
                seen.append(self._encode(part).features)
        # Copies without a graph, which collect gradients.
        features = joined(seen).map(lambda x: x.detach().requires_grad_())
        losses = self._pair_losses(features, parts)
        if losses.total.requires_grad:  # mask consistency alone compares no pairs of the batch
            scale(losses.total).backward()
        relevance = self._relevance(features, parts)
        mask = losses.total.new_zeros(())
        start = 0
        for part, state in zip(parts, states, strict=True):
            rows = slice(start, start + len(part))
            set_rng_state(device, state)
            encoded = self._encode(part)
            part_relevance = None if relevance is None else relevance[rows]
            part_mask = self._mask_loss(part, encoded, part_relevance, parts)
            _send_back(encoded.features, features, rows, scale(self.weights.mask * part_mask))
            mask = mask + part_mask.detach()
            start += len(part)
        return self._result(losses, mask, encoded)

    def _encode(self, part: Batch) -> EncodedPart:
        """Images, captions, masked captions and prompts through the encoders."""
        model, questions = self.model, part.questions
        caption = answer = prompt = None
        with self._autocast(part):
            image = model.encode_image(self.normalise(part.images))
            if self.weights.contrastive > 0:
                caption = self._text(part.caption).sentence
            if self.weights.entity > 0 and questions is not None:
                answer = model.complete_entities(self._text(questions.masked), image)
                prompt = self._text(questions.prompt).sentence
        return EncodedPart(image, Features(image.groups, caption, answer, prompt).map(_precise))

    def _text(self, tokens: Tokens) -> EncodedText:
        return self.model.encode_text(tokens.ids, tokens.mask)

    def _pair_losses(self, features: Features, parts: Sequence[Batch]) -> _PairLosses:
        """The losses that compare all pairs of the batch with each other."""
        model, valid = self.model, torch.cat([part.valid for part in parts])
        contrastive = entity = features.groups.new_zeros(())
        ranks = (self.rank, self.world_size)
        with self._autocast(parts[0]):
            if features.caption is not None:
                image = model.embed_image(features.groups)  # [A, C]
                caption = model.embed_text(features.caption)
                contrastive = contrastive_loss(image, caption, model.scale, valid, *ranks)
            if features.answer is not None and features.prompt is not None:
                answer = model.embed_answer(features.answer)  # [A, C]
                prompt = model.embed_text(features.prompt)
                asked = [part.questions.present for part in parts if part.questions is not None]
                counted = valid & torch.cat(asked)  # without a masked entity, nothing to complete
                entity = contrastive_loss(answer, prompt, model.scale, counted, *ranks)
        total = self.weights.contrastive * contrastive + self.weights.entity * entity
        return _PairLosses(total, contrastive, entity)

    @torch.no_grad()
    def _relevance(self, features: Features, parts: Sequence[Batch]) -> Tensor | None:
        """How near each group is to the shared entity, float [A, G]."""
        crosses = [part.cross for part in parts if part.cross is not None]
        if self.weights.mask == 0 or not crosses:
            return None
        with self._autocast(parts[0]):
            words = [self._text(cross.entity).sentence for cross in crosses]
            entity = self.model.embed_text(torch.cat(words))  # [A, C]
            groups = self.model.embed_groups(features.groups)  # [A, G, C]
        return relevance_of(groups.float(), entity.float())

    def _mask_loss(
        self,
        part: Batch,
        encoded: EncodedPart,
        relevance: Tensor | None,
        parts: Sequence[Batch],
    ) -> Tensor:
        """This part's share of the mask loss, whose sum over parts is the batch's."""
        cross, weights = part.cross, self.weights
        if relevance is None or cross is None or self.momentum is None:
            return encoded.features.groups.new_zeros(())
        seen = self._cross_images(self.momentum, part, cross)
        return groups_mask_loss(
            encoded.image.binding.query,
            replace(
                seen.binding,
                query=seen.binding.query[cross.partner],
                key=seen.binding.key[cross.partner],
            ),
            relevance,
            seen.grid,
            weights,
            _with_cross_image(part),
            torch.cat([_with_cross_image(each) for each in parts]),
        )

    @torch.no_grad()
    def _cross_images(
        self, momentum: ImageEncoder, part: Batch, cross: CrossImages
    ) -> EncodedImage:
        images = part.images if cross.images is None else cross.images
        with self._autocast(part):
            encoded: EncodedImage = momentum(self.normalise(images))
        return encoded

    def _autocast(self, part: Batch) -> AbstractContextManager:
        if self.precision == torch.float32:
            return nullcontext()
        return torch.autocast(part.images.device.type, dtype=self.precision)

    def _result(self, losses: _PairLosses, mask: Tensor, last: EncodedPart) -> StepResult:
        total, none = losses.total + self.weights.mask * mask, mask.new_zeros(())
        found = (total, losses.contrastive, losses.entity, mask, none, none, none)
        soft = last.image.binding.soft.detach()
        return step_result(found, soft)


def groups_mask_loss(
    query: Tensor,
    cross: Binding,
    relevance: Tensor,
    grid: tuple[int, int],
    weights: LossWeights,
    present: Tensor,
    of_batch: Tensor,
) -> Tensor:
    """A part's share of the mask loss, whose sum over the parts is the batch's, float [].

    Args:
        query: assignment queries of the images, float [B, G, D].
        cross: of each image's cross image, by the momentum encoder.
        relevance: of the groups to the shared entity, float [B, G].
        grid: rows and columns of the cross images' patches.
        weights: of the losses.
        present: images that have a cross image, bool [B].
        of_batch: the same of all parts, bool [A].
    """
    summed = mask_consistency_loss(
        query,
        cross.query,
        cross.key,
        relevance,
        grid,
        size=(weights.resolution, weights.resolution),
        threshold=weights.threshold,
        trained_groups=weights.trained_groups,
        smoothing=weights.smoothing,
        valid=present,
    )
    # The mean over the batch of all processes, as gradients are averaged over them afterwards.
    count = mean_over_processes(of_batch.float().sum()).clamp_min(1e-6)
    return summed * weights.mask_images / count


def loss_weights_of(loss: LossConfig) -> LossWeights:
    """The weights of the losses that are on."""
    return LossWeights(
        contrastive=loss.contrastive.weight if loss.contrastive.enabled else 0.0,
        entity=loss.entity.weight if loss.entity.enabled else 0.0,
        mask=loss.mask.weight if loss.mask.enabled else 0.0,
        threshold=loss.mask.threshold,
        trained_groups=loss.mask.trained_groups,
        smoothing=loss.mask.smoothing,
        resolution=loss.mask.resolution,
    )


def _with_cross_image(part: Batch) -> Tensor:
    """Pairs whose mask loss counts, bool [B]."""
    if part.cross is None:
        return torch.zeros_like(part.valid)
    return part.valid & part.cross.present


def _precise(x: Tensor) -> Tensor:
    """At least float32: what is kept between two passes should not lose digits."""
    return x if x.dtype == torch.float64 else x.float()


def _send_back(encoded: Features, cached: Features, rows: slice, surrogate: Tensor) -> None:
    """Give a part's features the gradients that the whole batch found for them.

    `surrogate` is what the part adds to the losses by itself, float [].
    """
    for feature, leaf in zip(encoded.all(), cached.all(), strict=True):
        if feature is not None and leaf is not None and leaf.grad is not None:
            surrogate = surrogate + (feature * leaf.grad[rows]).sum()
    surrogate.backward()
