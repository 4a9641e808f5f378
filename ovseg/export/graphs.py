"""What is written to a file: modules whose inputs and outputs are the file's.

Letters: B image, G group, N position, C embedding width, K class, T text, L token, H W pixels, h w
grid rows and columns.

An image graph takes pixels, class embeddings and a background threshold, so that new classes need
no new export. It returns what the model found in the image, which depends on no class, and behind
that scores and maps for the classes given; whoever asks for the first few outputs alone does not
pay for the others. Shapes may vary and no line depends on a value, so that all exporters follow.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ovseg.export.padding import with_fixed_padding
from ovseg.export.patches import ProductEncoder
from ovseg.export.positions import with_positions_for_all_sizes
from ovseg.models.clip.model import DenseImageEncoder
from ovseg.models.ovsegmentor.model import OVSegmentor
from ovseg.models.scoring import LIKELY_CLASSES
from ovseg.models.starter.reader import PositionReader
from ovseg.models.starter.scoring import near_the_best, phrase_scores

NO_BACKGROUND = float("-inf")
"""The threshold that leaves no pixel to the background."""
LOWEST = -1e30


class Found(NamedTuple):
    """The outputs of an image graph, in order.

    Attributes:
        embedding: of each group or position, float [B, G, C].
        image_embedding: float [B, C]; of dense models the mean over the positions.
        assignment: share of each position in each group, float [B, G, h*w]; empty in the last axis
            where the groups are the positions.
        scores: of background and classes per group, float [B, G, 1 + K].
        groups: group of each pixel, int64 [B, H, W].
        labels: label of each pixel, 0 for background, int64 [B, H, W].
    """

    embedding: Tensor
    image_embedding: Tensor
    assignment: Tensor
    scores: Tensor
    groups: Tensor
    labels: Tensor


class GroupingGraph(nn.Module):
    """OVSegmentor's image encoder, its scores and its maps."""

    scale: Tensor

    def __init__(self, model: OVSegmentor) -> None:
        super().__init__()
        self.encoder = ProductEncoder(model.image_encoder).eval()
        self.projector = model.image_projector
        self.register_buffer("scale", model.scale.detach().clone())

    def forward(self, pixels: Tensor, classes: Tensor, threshold: Tensor) -> Found:
        encoded = self.encoder(pixels)
        # In one call: exporters have lost weights that two calls share.
        rows = torch.cat([encoded.groups, encoded.mean[:, None]], dim=1)
        embedding, image = self.projector(rows).split([encoded.groups.shape[1], 1], dim=1)
        image = image.squeeze(1)
        scores = self._scores(embedding, image, classes, threshold)
        shares = encoded.binding.soft  # [B, G, N]
        maps = shares.unflatten(2, encoded.grid)
        groups = _upsample(maps, pixels).argmax(dim=1)  # [B, H, W]
        labels = scores.argmax(dim=2).gather(1, groups.flatten(1)).view_as(groups)
        return Found(embedding, image, shares, scores, groups, labels)

    def _scores(self, groups: Tensor, images: Tensor, classes: Tensor, threshold: Tensor) -> Tensor:
        """The rule of `ovseg.models.scoring`, for a number of classes known only when it runs."""
        groups, images, classes = (
            functional.normalize(x, dim=-1) for x in (groups, images, classes)
        )
        similarity = self.scale * (groups @ classes.mT)  # [B, G, K]
        likely = _largest(images @ classes.mT, LIKELY_CLASSES)[:, None]  # [B, 1, K]
        among = similarity.masked_fill(~likely, -torch.inf).softmax(dim=-1)
        scores = among * similarity.softmax(dim=-1)
        best = scores.amax(dim=-1, keepdim=True)  # [B, G, 1]
        limit = torch.minimum(best.amax(dim=1, keepdim=True), threshold)
        background = (best < limit).to(scores.dtype)
        return torch.cat([_unless_off(background, threshold), scores], dim=-1)


class PositionGraph(nn.Module):
    """Base of models whose groups are positions: maps come from scores resized to the pixels."""

    def positions(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Embeddings float [B, h*w, C] and the grid (h, w)."""
        raise NotImplementedError

    def score(self, embedding: Tensor, classes: Tensor, threshold: Tensor) -> Tensor:
        """Scores float [B, h*w, 1 + K]."""
        raise NotImplementedError

    def label(self, maps: Tensor, threshold: Tensor) -> Tensor:
        """Labels [B, H, W] from scores at the pixels, [B, 1 + K, H, W]."""
        raise NotImplementedError

    def forward(self, pixels: Tensor, classes: Tensor, threshold: Tensor) -> Found:
        embedding, grid = self.positions(pixels)
        scores = self.score(embedding, classes, threshold)
        # Where infinity meets a weight of 0, interpolation would make NaN of it.
        finite = scores.clamp_min(LOWEST)
        maps = _upsample(finite.mT.unflatten(2, grid), pixels)  # [B, 1 + K, H, W]
        return Found(
            embedding,
            embedding.mean(dim=1),
            embedding.new_zeros(embedding.shape[0], embedding.shape[1], 0),
            scores,
            _nearest(grid, pixels),
            self.label(maps, threshold),
        )


class StarterGraph(PositionGraph):
    """The built-in starter: class probabilities at every position."""

    def __init__(self, reader: PositionReader) -> None:
        super().__init__()
        self.reader = PositionReader(
            with_fixed_padding(reader.network), reader.surroundings, reader.saliency
        )

    def positions(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        return self.reader(pixels)

    def score(self, embedding: Tensor, classes: Tensor, threshold: Tensor) -> Tensor:
        phrases = phrase_scores(embedding, classes)
        phrases = torch.where(threshold > NO_BACKGROUND, near_the_best(phrases), phrases)
        background = torch.zeros_like(phrases[..., :1]) + threshold
        return torch.cat([background, phrases], dim=-1)

    def label(self, maps: Tensor, threshold: Tensor) -> Tensor:
        del threshold  # the background's map holds it
        return maps.argmax(dim=1)


class DenseClipGraph(PositionGraph):
    """Dense CLIP: cosines at the positions, a softmax over the classes at the pixels."""

    def __init__(self, network: DenseImageEncoder, scale: float) -> None:
        super().__init__()
        self.network = with_positions_for_all_sizes(network)
        self.scale = scale

    def positions(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        return self.network(pixels), self.network.grid(pixels.shape[-2], pixels.shape[-1])

    def score(self, embedding: Tensor, classes: Tensor, threshold: Tensor) -> Tensor:
        phrases = self.scale * (embedding @ classes.mT)
        asked = threshold.clamp_min(torch.finfo(threshold.dtype).tiny).log()
        bar = phrases.logsumexp(dim=-1, keepdim=True) + asked
        bar = torch.where(threshold > 0, bar, NO_BACKGROUND)
        return torch.cat([bar, phrases], dim=-1)

    def label(self, maps: Tensor, threshold: Tensor) -> Tensor:
        probability, best = maps[:, 1:].softmax(dim=1).max(dim=1)
        return torch.where(probability < threshold, 0, best + 1)


class TextGraph(nn.Module):
    """Prompts to embeddings of unit length."""

    def __init__(self, model: OVSegmentor) -> None:
        super().__init__()
        self.encoder = model.text_encoder
        self.projector = model.text_projector

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Token ids and mask, int64 [T, L], to float [T, C]."""
        return functional.normalize(self.projector(self.encoder(ids, mask).sentence), dim=-1)


def _upsample(maps: Tensor, pixels: Tensor) -> Tensor:
    """Maps [B, M, h, w] bilinearly to the size of the pixels, [B, M, H, W]."""
    size = (pixels.shape[-2], pixels.shape[-1])
    return functional.interpolate(maps, size, mode="bilinear", align_corners=False)


def _nearest(grid: tuple[int, int], pixels: Tensor) -> Tensor:
    """Index of the position nearest to each pixel, int64 [B, H, W]."""
    height, width = pixels.shape[-2:]
    row = (2 * torch.arange(height, device=pixels.device) + 1) * grid[0] // (2 * height)
    column = (2 * torch.arange(width, device=pixels.device) + 1) * grid[1] // (2 * width)
    places = row[:, None] * grid[1] + column
    return places.expand(pixels.shape[0], height, width)


def _largest(values: Tensor, count: int) -> Tensor:
    """Where the `count` largest values of each row are, bool [B, K]; everywhere if K is less."""
    # With columns that are never chosen before a real one, the row is never too short.
    padded = functional.pad(values, (0, count - 1), value=-torch.inf)
    chosen = padded.topk(count, dim=-1).indices
    hits = torch.zeros_like(padded).scatter(1, chosen, 1.0)
    return hits[:, : values.shape[1]] > 0


def _unless_off(column: Tensor, threshold: Tensor) -> Tensor:
    """The background's column, or -inf where there is to be none."""
    return torch.where(torch.isneginf(threshold), NO_BACKGROUND, column)
