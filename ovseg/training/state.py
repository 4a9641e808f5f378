"""What a run trains, and what it trains it with, put together from a recipe."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.amp import GradScaler

from ovseg.config.schema import Recipe
from ovseg.distributed import Processes
from ovseg.training.aligned.trainee import AlignedTrainee
from ovseg.training.optim import MomentumEncoder, Updater, build_optimizer, schedule_of
from ovseg.training.paper import OVSegmentorTrainee
from ovseg.training.rng import rng_state, set_rng_state
from ovseg.training.trainee import Prepare, Step, Trainee


class TrainState:
    """A model on its device with its data, losses, schedule and optimizer.

    Building it asks no other process anything; `prepare` comes next.

    Attributes:
        trainee: the model with its batches, its losses and its file.
        recipe: with the sizes that the towers turned out to have, as checkpoints carry it.
        model: all that is trained.
        epoch_steps: optimizer steps of an epoch.
        momentum: the encoder of cross images; None without mask consistency.
        scaler: of the losses, against float16's underflow; off in other precisions.
        step: losses and gradients.
    """

    step: Step

    def __init__(self, recipe: Recipe, group: Processes) -> None:
        self.group = group
        self.device = _device(group)
        self.trainee = _trainee(recipe, group, self.device)
        self.recipe = self.trainee.recipe
        self.source, self.share = self.trainee.source, self.trainee.share
        self.model: nn.Module = self.trainee.model
        self.epoch_steps = self.source.steps_per_epoch(recipe, self.share)
        self.schedule = schedule_of(recipe.schedule, self.epoch_steps, self.share.total)
        self.momentum = self._momentum()
        self.scaler = GradScaler(self.device.type, enabled=recipe.train.precision == "fp16")
        self.updater = self._updater()

    def prepare(self, tell: Prepare) -> None:
        """Make this process's share of what the first step needs."""
        self.trainee.prepare(tell)

    def begin(self) -> None:
        """Open what all processes have made."""
        self.step = self.trainee.step_for(self.momentum)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Evaluation mode; afterwards everything, random numbers too, is as before."""
        before = rng_state(self.device)
        self.model.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.trainee.train_mode()
            set_rng_state(self.device, before)

    def _momentum(self) -> MomentumEncoder | None:
        mask = self.recipe.loss.mask
        if not mask.enabled:
            return None
        return MomentumEncoder(self.trainee.momentum_source, mask.momentum)

    def _updater(self) -> Updater:
        if self.recipe.train.compile:
            self.trainee.compile()
        config = self.recipe.optimizer
        optimizer = build_optimizer(self.model, config)
        return Updater(self.model, optimizer, config.clip_norm, self.group.size, self.scaler)


def _trainee(recipe: Recipe, group: Processes, device: torch.device) -> Trainee:
    kind = OVSegmentorTrainee if recipe.model.aligned is None else AlignedTrainee
    return kind(group, device, recipe)


def _device(group: Processes) -> torch.device:
    if group.device is not None:
        return torch.device(group.device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
