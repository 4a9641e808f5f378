"""One training step's losses and gradients, however many parts its batch comes in.

A contrastive batch that does not fit the memory comes in parts. Their features are computed without
a graph first; the losses of the whole batch then give each feature its gradient; and each part is
encoded once more, with the same noise, to send those gradients on to the encoders (gradient
caching, Gao et al. 2021). The projectors see the whole batch at once, so that even BatchNorm's
statistics are those of the large batch.

Letters: A pair of the whole batch, B pair of a part, G group, N patch, D image width, E text width,
F width of the entity decoder, C embedding width.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from ovseg.distributed import mean_over_processes
from ovseg.losses.contrastive import contrastive_loss
from ovseg.losses.entity import entity_loss
from ovseg.losses.mask import mask_consistency_loss, relevance_of
from ovseg.models.image_encoder import EncodedImage, ImageEncoder
from ovseg.models.ovsegmentor import OVSegmentor
from ovseg.models.predictor import IMAGENET_MEAN, IMAGENET_STD
from ovseg.training.batch import Batch
from ovseg.training.features import EncodedPart, Features, features_of
from ovseg.training.noise import noise_state, set_noise_state
from ovseg.training.objective import Losses, Objective


class TrainingStep:
    """Computes losses and accumulates gradients in the parameters of `model`.

    Args:
        model: in training mode.
        momentum: the encoder of cross images; needed where `objective.mask` is above 0.
        objective: the losses.
        precision: dtype of the encoders' matrix products; float32 leaves autocast off.
        rank, world_size: this process and how many there are.
    """

    def __init__(
        self,
        model: OVSegmentor,
        momentum: ImageEncoder | None,
        objective: Objective,
        precision: torch.dtype = torch.float32,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.model = model
        self.momentum = momentum
        self.objective = objective
        self.precision = precision
        self.rank = rank
        self.world_size = world_size
        self.last_image: EncodedImage | None = None

    def __call__(self, parts: Sequence[Batch], loss_scale: float | Tensor = 1.0) -> Losses:
        """Add the gradients of a batch to the model's and return its losses.

        With several processes, the mean of their gradients is that of the batch they share.

        Args:
            parts: the batch of this process, on its device; equally many pairs in every process.
            loss_scale: what gradients are multiplied by, against float16's underflow.
        """
        if len(parts) == 1:
            return self._at_once(parts[0], loss_scale)
        return self._in_parts(parts, loss_scale)

    def _at_once(self, part: Batch, loss_scale: float | Tensor) -> Losses:
        encoded = self._encode(part)
        losses = self._batch_losses(encoded.features, [part])
        mask = self._mask_loss(part, encoded, self._relevance(encoded.features, [part]), [part])
        total = losses.total + self.objective.mask * mask
        (total * loss_scale).backward()
        return _report(losses, mask, self.objective.mask)

    def _in_parts(self, parts: Sequence[Batch], loss_scale: float | Tensor) -> Losses:
        device = parts[0].images.device
        states, seen = [], []
        for part in parts:
            states.append(noise_state(device))
            with torch.no_grad():
                seen.append(self._encode(part).features)
        features = Features.joined(seen).detached()
        losses = self._batch_losses(features, parts)
        if losses.total.requires_grad:  # mask consistency alone compares no pairs of the batch
            (losses.total * loss_scale).backward()
        relevance = self._relevance(features, parts)
        mask = losses.total.new_zeros(())
        start = 0
        for part, state in zip(parts, states, strict=True):
            rows = slice(start, start + len(part))
            set_noise_state(device, state)
            encoded = self._encode(part)
            part_relevance = None if relevance is None else relevance[rows]
            part_mask = self._mask_loss(part, encoded, part_relevance, parts)
            _send_back(
                encoded.features, features, rows, part_mask * self.objective.mask, loss_scale
            )
            mask = mask + part_mask.detach()
            start += len(part)
        return _report(losses, mask, self.objective.mask)

    def _encode(self, part: Batch) -> EncodedPart:
        """Images, captions, masked captions and prompts through the encoders."""
        model, questions = self.model, part.questions
        with self._autocast(part):
            image = model.encode_image(normalised(part.images))
            caption = answer = prompt = None
            if self.objective.contrastive > 0:
                caption = model.encode_text(part.caption.ids, part.caption.mask).sentence
            if self.objective.entity > 0 and questions is not None:
                masked = model.encode_text(questions.masked.ids, questions.masked.mask)
                answer = model.entity_decoder(masked.tokens, masked.mask, image.groups)
                prompt = model.encode_text(questions.prompt.ids, questions.prompt.mask).sentence
        self.last_image = image
        columns = [
            None if x is None else _precise(x) for x in (image.groups, caption, answer, prompt)
        ]
        return EncodedPart(image, features_of(columns))

    def _batch_losses(self, features: Features, parts: Sequence[Batch]) -> Losses:
        """The losses that compare all pairs of the batch with each other."""
        model, valid = self.model, torch.cat([part.valid for part in parts])
        zero = features.groups.new_zeros(())
        contrastive = entity = zero
        ranks = (self.rank, self.world_size)
        with self._autocast(parts[0]):
            if features.caption is not None:
                image = model.image_projector(features.groups.mean(dim=1))  # [A, C]
                caption = model.text_projector(features.caption)
                contrastive = contrastive_loss(image, caption, model.scale, valid, *ranks)
            if features.answer is not None and features.prompt is not None:
                answer = model.bridge_projector(features.answer)  # [A, C]
                prompt = model.text_projector(features.prompt)
                asked = [part.questions.present for part in parts if part.questions is not None]
                counted = valid & torch.cat(asked)
                entity = entity_loss(answer, prompt, model.scale, counted, *ranks)
        total = self.objective.contrastive * contrastive + self.objective.entity * entity
        return Losses(total=total, contrastive=contrastive, entity=entity, mask=zero)

    @torch.no_grad()
    def _relevance(self, features: Features, parts: Sequence[Batch]) -> Tensor | None:
        """How near each group is to the shared entity, float [A, G]."""
        crosses = [part.cross for part in parts if part.cross is not None]
        if self.objective.mask == 0 or not crosses:
            return None
        model = self.model
        with self._autocast(parts[0]):
            words = [model.encode_text(c.entity.ids, c.entity.mask).sentence for c in crosses]
            entity = model.text_projector(torch.cat(words))  # [A, C]
            groups = model.image_projector(features.groups)  # [A, G, C]
        return relevance_of(groups.float(), entity.float())

    def _mask_loss(
        self,
        part: Batch,
        encoded: EncodedPart,
        relevance: Tensor | None,
        parts: Sequence[Batch],
    ) -> Tensor:
        """This part's share of the mask loss, whose sum over parts is the batch's."""
        cross, objective = part.cross, self.objective
        if relevance is None or cross is None or self.momentum is None:
            return encoded.features.groups.new_zeros(())
        images = part.images if cross.images is None else cross.images
        with torch.no_grad(), self._autocast(part):
            seen = self.momentum(normalised(images))
        counted = self._counted(part)
        summed = mask_consistency_loss(
            encoded.image.binding.query,
            seen.binding.query[cross.partner],
            seen.binding.key[cross.partner],
            relevance,
            seen.grid,
            size=(objective.resolution, objective.resolution),
            threshold=objective.threshold,
            trained_groups=objective.trained_groups,
            smoothing=objective.smoothing,
            valid=counted,
        )
        # The mean over the batch of all processes, as gradients are averaged over them afterwards.
        count = torch.cat([self._counted(each) for each in parts]).float().sum()
        count = mean_over_processes(count).clamp_min(1e-6)
        return summed * objective.mask_images / count

    def _counted(self, part: Batch) -> Tensor:
        """Pairs whose mask loss counts, bool [B]."""
        if part.cross is None:
            return torch.zeros_like(part.valid)
        return part.valid & part.cross.present

    def _autocast(self, part: Batch) -> AbstractContextManager:
        if self.precision == torch.float32:
            return nullcontext()
        return torch.autocast(part.images.device.type, dtype=self.precision)


def normalised(images: Tensor) -> Tensor:
    """uint8 images [B, 3, H, W] as the encoder takes them: ImageNet's mean and deviation, float."""
    channels = images.float().unbind(dim=1)
    # Channel by channel, so that no tensor of constants has to be copied to the device each time.
    statistics = zip(channels, IMAGENET_MEAN, IMAGENET_STD, strict=True)
    return torch.stack([(x - mean) / deviation for x, mean, deviation in statistics], dim=1)


def _precise(x: Tensor) -> Tensor:
    """At least float32: what is kept between two passes should not lose digits."""
    return x if x.dtype == torch.float64 else x.float()


def _send_back(
    encoded: Features, cached: Features, rows: slice, extra: Tensor, loss_scale: float | Tensor
) -> None:
    """Give a part's features the gradients that the whole batch found for them."""
    pairs = zip(encoded.tensors(), cached.tensors(), strict=True)
    surrogate = extra * loss_scale
    for feature, leaf in pairs:
        if leaf.grad is not None:
            surrogate = surrogate + (feature * leaf.grad[rows]).sum()
    surrogate.backward()


def _report(losses: Losses, mask: Tensor, weight: float) -> Losses:
    return Losses(
        total=(losses.total + weight * mask).detach(),
        contrastive=losses.contrastive.detach(),
        entity=losses.entity.detach(),
        mask=mask.detach(),
    )
