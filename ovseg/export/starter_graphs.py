"""The built-in starter's image graph, and that of a starter that was taught classes.

Letters: B image, C embedding width, K class, H W pixels.
"""

import torch
from torch import Tensor

from ovseg.export.any_size import with_fixed_padding
from ovseg.export.graphs import FoundFeatures, PositionGraph
from ovseg.models.scoring import Weights, starter_scores
from ovseg.models.starter.captions import WIDTH
from ovseg.models.starter.network import STRIDE
from ovseg.models.starter.reader import CELL, PositionReader, PositionReading, finer
from ovseg.models.taught.head import LearnedHead
from ovseg.models.taught.stuff import scores_beside_stuff


class StarterGraph(PositionGraph):
    """The built-in starter: class probabilities at every position."""

    def __init__(self, reader: PositionReader) -> None:
        super().__init__()
        network = with_fixed_padding(reader.network)
        parts = (network, reader.captions, reader.saliency)
        self.reader = PositionReader(*parts, reader.rule)
        self.captions = WIDTH + 1

    outputs = FoundFeatures._fields

    def forward(self, pixels: Tensor, classes: Tensor, threshold: Tensor) -> FoundFeatures:
        read = self.reader(pixels)
        scores = self.scores(read, classes, threshold)
        found = self.found(read.positions, read.grid, scores, pixels, threshold)
        return FoundFeatures(*found, read.middle, read.stages, read.weights)

    def scores(self, read: PositionReading, classes: Tensor, threshold: Tensor) -> Tensor:
        """Float [B, h*w, 1 + K]."""
        weights = Weights(read.weights, read.grid, STRIDE // CELL)
        return starter_scores(read.positions, classes, threshold, self.captions, weights)

    def label(self, maps: Tensor, threshold: Tensor) -> Tensor:
        del threshold  # the background's map holds it
        return maps.argmax(dim=1)


class TaughtStarterGraph(StarterGraph):
    """The starter with taught classes: odds of them behind what positions are.

    Args:
        reader: the starter's.
        head: tells the classes; arrays of NumPy.
        text, threshold, stuff, doubt: as `scores_beside_stuff` takes them.
    """

    def __init__(
        self,
        reader: PositionReader,
        head: LearnedHead,
        text: float,
        threshold: float,
        stuff: tuple[int, ...],
        doubt: float,
    ) -> None:
        super().__init__(reader)
        self.head = head.mapped(torch.from_numpy)
        self.told = (text, threshold, stuff)
        self.doubt = doubt

    def forward(self, pixels: Tensor, classes: Tensor, threshold: Tensor) -> FoundFeatures:
        read = self.reader(pixels)
        odds = self.head.odds(read.stages)
        base = self.scores(read, classes[..., : classes.shape[-1] - self.head.classes], threshold)
        scores = scores_beside_stuff(
            base, finer(odds, read.grid), classes, *self.told, doubt=self.doubt
        )
        embedding = torch.cat([read.positions, odds], dim=-1)
        found = self.found(embedding, read.grid, scores, pixels, threshold)
        return FoundFeatures(*found, read.middle, read.stages, read.weights)
