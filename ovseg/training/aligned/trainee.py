"""Training an aligned model: the head between frozen towers, whose features are computed once."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ovseg.config.schema import Recipe
from ovseg.data.dataset.photos import Split
from ovseg.data.vectors import VectorRows
from ovseg.distributed import Processes
from ovseg.errors import RecipeError
from ovseg.models.aligned.aligned_model import AlignedModel, write_aligned
from ovseg.models.aligned.aligner import AlignedPredictor, load_aligned_state
from ovseg.models.aligned.assembly import build_aligned
from ovseg.models.aligned.head import AlignedHead
from ovseg.models.interface import ModelCard
from ovseg.models.tensor_files import read_tensors
from ovseg.training.aligned.encoding import HEADS, SENTENCE, TOKENS
from ovseg.training.aligned.features import CAPTIONS, MASKED, PROMPTS, WORDS, Features, view_name
from ovseg.training.aligned.feed import FeatureBatch, FeatureFeed, word_counts
from ovseg.training.aligned.lesson import AlignedStep, Tables
from ovseg.training.aligned.tables import FeatureTable
from ovseg.training.batch_norm import synchronise_batch_norm
from ovseg.training.feed.source import open_source
from ovseg.training.feed.vocabulary import build_tokenizer
from ovseg.training.optim import MomentumEncoder
from ovseg.training.start import start_path
from ovseg.training.step import PRECISIONS
from ovseg.training.trainee import Prepare, Step, Trainee

_MEASURED = 1_000  # photos that channels are standardised by


class AlignedTrainee(Trainee):
    """The head of an aligned model, its towers, and their features.

    Attributes:
        whole: towers and head.
        features: of the towers.
    """

    model: AlignedHead

    def __init__(self, group: Processes, device: torch.device, recipe: Recipe) -> None:
        super().__init__(group, device, recipe)
        self.source = open_source(recipe)
        self.source.steps_per_epoch(recipe, self.share)  # before any weights are fetched
        if self.source.photos is None:
            raise RecipeError(
                "an aligned model trains from the folders of ovseg build-dataset, whose photos "
                "have numbers; data.shards names .tar files"
            )
        self.recipe = recipe
        self.texts = build_tokenizer(recipe, self.source)
        self.whole = self._built(recipe)
        if group.size > 1:
            synchronise_batch_norm(self.whole.head)
        self.whole.to(device)
        self.model = self.whole.head
        self.features = Features(recipe, self.whole, self.source.photos, self.texts, device)
        self.train_mode()
        self._feed: FeatureFeed | None = None

    def _built(self, recipe: Recipe) -> AlignedModel:
        """The model with its start weights; the same in every process."""
        torch.manual_seed(recipe.train.seed)
        model = build_aligned(recipe.model, pretrained=True)
        if recipe.train.start_from:
            path = start_path(recipe.train)
            load_aligned_state(model, read_tensors(path), str(path))
        return model

    def prepare(self, tell: Prepare) -> None:
        self.features.make(tell, self.group.rank, self.group.size)

    @property
    def scale(self) -> Tensor:
        return self.model.scale

    @property
    def momentum_source(self) -> nn.Module:
        assert self.model.grouping is not None  # the recipe's own rule
        return self.model.grouping.encoder

    def train_mode(self) -> None:
        self.whole.train()

    def compile(self) -> None:
        raise RecipeError("train.compile is for the paper's model: set it to false")

    def step_for(self, momentum: MomentumEncoder | None) -> Step:
        photos, split, sets = self.features.photos, self.features.split, self.features.sets
        views = {field: self._views(field) for field in self.features.photo_fields}
        if self.model.standardised and not self.recipe.train.start_from and TOKENS in views:
            self.model.set_statistics(*statistics(views[TOKENS][0], split))
        self._feed = FeatureFeed(self.recipe, photos, split, _unreadable(views))
        tables = Tables(
            positions=self._table(views.get(TOKENS)),
            heads=self._table(views.get(HEADS)),
            captions=FeatureTable([self.features.rows(CAPTIONS, SENTENCE)], self.device),
            prompts=self._texts(PROMPTS, SENTENCE) if PROMPTS in sets else None,
            masked=self._texts(MASKED, TOKENS) if MASKED in sets else None,
            words=self._words() if WORDS in sets else None,
            word_counts=torch.from_numpy(word_counts(photos, split)),
            grid=self.features.grid,
        )
        return AlignedStep(
            self.model,
            None if momentum is None else momentum.encoder,
            tables,
            self.recipe,
            self.device,
            PRECISIONS[self.recipe.train.precision],
            self.group.rank,
            self.group.size,
        )

    def _views(self, field: str) -> list[VectorRows]:
        return [self.features.rows(view_name(n), field) for n in range(self.recipe.data.views)]

    def _table(self, views: list[VectorRows] | None) -> FeatureTable | None:
        return None if views is None else FeatureTable(views, self.device)

    def _texts(self, kind: str, field: str) -> FeatureTable:
        return FeatureTable([self.features.rows(kind, field)], self.device)

    def _words(self) -> Tensor:
        """Sentences of words, float [W, P, E]."""
        rows = self.features.rows(WORDS, SENTENCE)
        found = torch.from_numpy(rows.take(np.arange(len(rows)))[0])[:, 0].float()
        count = len(self.recipe.loss.words.templates)
        return found.unflatten(0, (-1, count)).to(self.device)

    def batches(self, first: int, last: int) -> Iterator[FeatureBatch]:
        assert self._feed is not None  # made by step_for
        draws = self.source.sampler(self.recipe, self.share, first, last)
        return self._feed.batches(draws, first)

    def flops(self, part: FeatureBatch, parts: int) -> float:
        del part, parts
        return 0.0

    def write(self, path: Path) -> None:
        write_aligned(
            path,
            self.model.state_dict(),
            self.recipe,
            vision=self.whole.vision,
            text=self.whole.text,
            tokenizer=self.texts.files,
            description="aligned model, trained by ovseg pretrain",
        )

    def load(self, tensors: Mapping[str, Tensor], where: str) -> None:
        load_aligned_state(self.whole, tensors, where)

    def predictor(self, card: ModelCard) -> AlignedPredictor:
        return AlignedPredictor(self.whole, self.recipe.model, self.texts.tokenizer, card)

    def draw(self, path: Path) -> None:
        del path
        raise RecipeError("train.overlays_every is for the paper's model: set it to 0")


def statistics(views: VectorRows, split: Split) -> tuple[Tensor, Tensor]:
    """Mean and deviation of every channel over the positions of training photos, float [D] each."""
    count, total, squares = 0, np.zeros(views.width), np.zeros(views.width)
    for photo in range(split.first, min(split.last, split.first + _MEASURED)):
        found = views[photo].astype(np.float64)  # [N, D]
        count += len(found)
        total += found.sum(axis=0)
        squares += np.square(found).sum(axis=0)
    mean = total / max(count, 1)
    deviation = np.sqrt(np.maximum(squares / max(count, 1) - mean**2, 0))
    return torch.from_numpy(mean).float(), torch.from_numpy(deviation).float()


def _unreadable(views: dict[str, list[VectorRows]]) -> dict[tuple[int, int], str]:
    """Why views have no features, by view and photo."""
    some = next(iter(views.values()))
    return {
        (number, photo): why
        for number, rows in enumerate(some)
        for photo, why in rows.problems.items()
    }
