"""What a run can train: one kind of model with its batches, its losses and its file.

The loop, the optimizer, checkpoints, the log and resuming are the same for all kinds.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ovseg.config.schema import Recipe
from ovseg.distributed import Processes
from ovseg.models.interface import ModelCard, SegmentationModel
from ovseg.training.feed.sampler import Share
from ovseg.training.feed.source import PairSource, share_of
from ovseg.training.optim import MomentumEncoder
from ovseg.training.step import StepResult

Step = Callable[..., StepResult]
"""A step's losses and gradients: of the parts of a batch, with what scales the losses."""

Prepare = Callable[[str, int, int | None], None]
"""Told what is being made before the training, how much of it is done, and how much there is."""


class Trainee(ABC):
    """A model in training; building it asks no other process anything.

    Attributes:
        recipe: with the sizes that towers turned out to have, as checkpoints carry it.
        source: of the pairs.
        share: how a step's pairs are dealt.
        model: holds all that is trained; its names are those of the optimizer's state.
    """

    recipe: Recipe
    source: PairSource
    model: nn.Module

    def __init__(self, group: Processes, device: torch.device, recipe: Recipe) -> None:
        self.group = group
        self.device = device
        self.share: Share = share_of(recipe, group.rank, group.size)

    def prepare(self, tell: Prepare) -> None:
        """Make what has to be there before the first step; every process makes its share."""
        del tell

    @property
    @abstractmethod
    def scale(self) -> Tensor:
        """What cosines are multiplied by, float []."""

    @property
    @abstractmethod
    def momentum_source(self) -> nn.Module:
        """What a momentum encoder follows."""

    @abstractmethod
    def train_mode(self) -> None:
        """Put the model into training mode, but for what is frozen."""

    @abstractmethod
    def compile(self) -> None:
        """Compile what can be compiled."""

    @abstractmethod
    def step_for(self, momentum: MomentumEncoder | None) -> Step:
        """The losses; asked for once everything is prepared."""

    @abstractmethod
    def batches(self, first: int, last: int) -> Iterator[Any]:
        """The parts of all steps from `first` to `last`, one after the other, on the host."""

    @abstractmethod
    def flops(self, part: Any, parts: int) -> float:
        """Operations that a pair of a part costs; 0 where that is not known."""

    @abstractmethod
    def write(self, path: Path) -> None:
        """Write the model as a checkpoint that `ovseg segment` takes."""

    @abstractmethod
    def load(self, tensors: Mapping[str, Tensor], where: str) -> None:
        """Put back what `write` wrote."""

    @abstractmethod
    def predictor(self, card: ModelCard) -> SegmentationModel:
        """The model as it is, behind the interface of inference."""

    @abstractmethod
    def draw(self, path: Path) -> None:
        """Write a PNG of a few images and their groups."""
