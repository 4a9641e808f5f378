"""What a run trains, and what it trains it with, put together from a recipe."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ovseg.config.schema import Recipe
from ovseg.distributed import Processes
from ovseg.models.ovsegmentor.network import OVSegmentor
from ovseg.training import setup
from ovseg.training.loss_scale import LossScale
from ovseg.training.momentum import MomentumEncoder
from ovseg.training.optimizer import Updater, build_optimizer
from ovseg.training.rng import rng_state, set_rng_state
from ovseg.training.schedule import schedule_of
from ovseg.training.step import TrainingStep
from ovseg.training.synchronised import synchronise_batch_norm


class Trainee:
    """A model on its device with its data, losses, schedule and optimizer.

    Building it asks no other process anything.

    Attributes:
        recipe: with the sizes that the text encoder turned out to have, as checkpoints carry it.
        epoch_steps: optimizer steps of an epoch.
        momentum: the encoder of cross images; None without mask consistency.
    """

    def __init__(self, recipe: Recipe, group: Processes) -> None:
        self.group = group
        self.device = _device(group)
        self.source = setup.open_source(recipe)
        self.share = setup.share_of(recipe, group.rank, group.size)
        self.epoch_steps = self.source.steps_per_epoch(recipe, self.share)
        self.schedule = schedule_of(recipe.schedule, self.epoch_steps, self.share.total)
        self.texts = setup.build_texts(recipe, self.source)
        model = setup.build_model(recipe)
        self.recipe = recipe.model_copy(
            update={"model": setup.with_text_sizes(recipe.model, model)}
        )
        self.maker = setup.build_maker(recipe, self.source, self.texts)
        self.model = self._prepare(model)
        self.momentum = self._momentum()
        self.updater = self._updater()
        self.loss_scale = LossScale(recipe.train.precision == "fp16", self.device)
        self.step = TrainingStep(
            self.model,
            None if self.momentum is None else self.momentum.encoder,
            setup.loss_weights_of(recipe.loss),
            setup.PRECISIONS[recipe.train.precision],
            group.rank,
            group.size,
        )

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Evaluation mode; afterwards everything, random numbers too, is as before."""
        state = rng_state(self.device)
        self.model.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self._train_mode(self.model)
            set_rng_state(self.device, state)

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
        return Updater(self.model, optimizer, config.clip_norm, self.group.size)


def _device(group: Processes) -> torch.device:
    if group.device is not None:
        return torch.device(group.device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
