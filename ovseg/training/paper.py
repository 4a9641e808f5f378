"""Training the paper's model: pairs of images and captions through both encoders."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ovseg.config.schema import Recipe
from ovseg.distributed import Processes
from ovseg.models.checkpoint import load_state, write_checkpoint
from ovseg.models.interface import ModelCard
from ovseg.models.ovsegmentor.network import OVSegmentor
from ovseg.models.ovsegmentor.predictor import Predictor
from ovseg.training.batch import Batch
from ovseg.training.batch_norm import synchronise_batch_norm
from ovseg.training.feed.collate import build_collator, load_batches
from ovseg.training.feed.source import open_source
from ovseg.training.feed.vocabulary import build_tokenizer
from ovseg.training.flops import batch_lengths, pair_cost
from ovseg.training.optim import MomentumEncoder
from ovseg.training.overlays import draw_overlays
from ovseg.training.start import build_model, with_text_sizes
from ovseg.training.step import PRECISIONS, TrainingStep, loss_weights_of
from ovseg.training.trainee import Step, Trainee


class OVSegmentorTrainee(Trainee):
    """OVSegmentor with its pairs.

    Attributes:
        texts: the tokenizer of all texts.
    """

    model: OVSegmentor

    def __init__(self, group: Processes, device: torch.device, recipe: Recipe) -> None:
        super().__init__(group, device, recipe)
        self.source = open_source(recipe)
        self.source.steps_per_epoch(recipe, self.share)  # before any weights are fetched
        self.texts = build_tokenizer(recipe, self.source)
        model = build_model(recipe)
        self.recipe = recipe.model_copy(update={"model": with_text_sizes(recipe.model, model)})
        self.collator = build_collator(recipe, self.source, self.texts)
        if recipe.train.freeze_text:
            model.text_encoder.requires_grad_(False)
        if group.size > 1:
            synchronise_batch_norm(model)
        self.model = model.to(device)
        self.train_mode()

    @property
    def scale(self) -> Tensor:
        return self.model.scale

    @property
    def momentum_source(self) -> nn.Module:
        return self.model.image_encoder

    def train_mode(self) -> None:
        self.model.train()
        if self.recipe.train.freeze_text:
            self.model.text_encoder.eval()

    def compile(self) -> None:
        self.model.image_encoder.compile()
        self.model.text_encoder.compile()

    def step_for(self, momentum: MomentumEncoder | None) -> Step:
        return TrainingStep(
            self.model,
            None if momentum is None else momentum.encoder,
            loss_weights_of(self.recipe.loss),
            PRECISIONS[self.recipe.train.precision],
            self.group.rank,
            self.group.size,
        )

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        recipe = self.recipe
        sampler = self.source.sampler(recipe, self.share, first, last)
        return load_batches(self.collator, sampler, recipe.data.workers, self.device)

    def flops(self, part: Batch, parts: int) -> float:
        recipe = self.recipe
        masks = recipe.loss.mask.enabled
        lengths = batch_lengths(part)
        return pair_cost(recipe.model, lengths, recipe.train.freeze_text, masks, parts).total

    def write(self, path: Path) -> None:
        write_checkpoint(
            path,
            self.model.state_dict(),
            self.recipe,
            tokenizer=self.texts.files,
            description="OVSegmentor, trained by ovseg pretrain",
        )

    def load(self, tensors: Mapping[str, Tensor], where: str) -> None:
        load_state(self.model, tensors, where)

    def predictor(self, card: ModelCard) -> Predictor:
        return Predictor(self.model, self.texts.tokenizer, card)

    def draw(self, path: Path) -> None:
        if self.source.index is not None:
            size = self.recipe.model.image.image_size
            draw_overlays(self.model, self.source.index, path, size)
