"""What a run trains, and what it trains it with, put together from a recipe."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.amp import GradScaler

from ovseg.config.schema import LossConfig, Recipe
from ovseg.distributed import Processes
from ovseg.models.ovsegmentor.network import OVSegmentor
from ovseg.training.batch_norm import synchronise_batch_norm
from ovseg.training.feed.collate import build_collator
from ovseg.training.feed.source import open_source, share_of
from ovseg.training.feed.vocabulary import build_tokenizer
from ovseg.training.optim import MomentumEncoder, Updater, build_optimizer, schedule_of
from ovseg.training.rng import rng_state, set_rng_state
from ovseg.training.start import build_model, with_text_sizes
from ovseg.training.step import LossWeights, TrainingStep

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TrainState:
    """A model on its device with its data, losses, schedule and optimizer.

    Building it asks no other process anything.

    Attributes:
        recipe: with the sizes that the text encoder turned out to have, as checkpoints carry it.
        epoch_steps: optimizer steps of an epoch.
        momentum: the encoder of cross images; None without mask consistency.
        scaler: of the losses, against float16's underflow; off in other precisions.
    """

    def __init__(self, recipe: Recipe, group: Processes) -> None:
        self.group = group
        self.device = _device(group)
        self.source = open_source(recipe)
        self.share = share_of(recipe, group.rank, group.size)
        self.epoch_steps = self.source.steps_per_epoch(recipe, self.share)
        self.schedule = schedule_of(recipe.schedule, self.epoch_steps, self.share.total)
        self.texts = build_tokenizer(recipe, self.source)
        model = build_model(recipe)
        self.recipe = recipe.model_copy(update={"model": with_text_sizes(recipe.model, model)})
        self.collator = build_collator(recipe, self.source, self.texts)
        self.model = self._prepare(model)
        self.momentum = self._momentum()
        self.scaler = GradScaler(self.device.type, enabled=recipe.train.precision == "fp16")
        self.updater = self._updater()
        self.step = TrainingStep(
            self.model,
            None if self.momentum is None else self.momentum.encoder,
            loss_weights_of(recipe.loss),
            PRECISIONS[recipe.train.precision],
            group.rank,
            group.size,
        )

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Evaluation mode; afterwards everything, random numbers too, is as before."""
        before = rng_state(self.device)
        self.model.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self._train_mode(self.model)
            set_rng_state(self.device, before)

    def _train_mode(self, model: OVSegmentor) -> None:
        model.train()
        if self.recipe.train.freeze_text:
            model.text_encoder.eval()

    def _prepare(self, model: OVSegmentor) -> OVSegmentor:
        if self.recipe.train.freeze_text:
            model.text_encoder.requires_grad_(False)
        if self.group.size > 1:
            synchronise_batch_norm(model)
        model = model.to(self.device)
        self._train_mode(model)
        return model

    def _momentum(self) -> MomentumEncoder | None:
        mask = self.recipe.loss.mask
        return MomentumEncoder(self.model.image_encoder, mask.momentum) if mask.enabled else None

    def _updater(self) -> Updater:
        if self.recipe.train.compile:
            self.model.image_encoder.compile()
            self.model.text_encoder.compile()
        config = self.recipe.optimizer
        optimizer = build_optimizer(self.model, config)
        return Updater(self.model, optimizer, config.clip_norm, self.group.size, self.scaler)


def _device(group: Processes) -> torch.device:
    if group.device is not None:
        return torch.device(group.device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


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
