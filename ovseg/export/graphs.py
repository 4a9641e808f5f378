"""What is written to a file: modules whose inputs and outputs are the file's.

Letters: B image, G group, N position, C embedding width, K class, T text, L token, H W pixels, h w
grid rows and columns.

An image graph takes pixels, class embeddings and a background threshold, so that new classes need
no new export. It returns what the model found in the image, which depends on no class, and behind
that scores and maps for the classes given; whoever asks for the first few outputs alone does not
pay for the others. Scores come from `ovseg.models.scoring`, as the models' own do. Shapes may vary
and no line depends on a value, so that all exporters follow.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ovseg.errors import ModelError
from ovseg.export.any_size import (
    ProductEncoder,
    groupvit_at_any_size,
    tips_at_any_size,
    with_positions_for_all_sizes,
)
from ovseg.models.aligned.aligned_model import AlignedModel
from ovseg.models.aligned.aligner import ImageReader
from ovseg.models.clip.model import DenseImageEncoder
from ovseg.models.interface import GroupedImage
from ovseg.models.ovsegmentor.network import OVSegmentor
from ovseg.models.scoring import (
    Cleaning,
    aligned_scores,
    dense_clip_scores,
    ovsegmentor_scores,
)
from ovseg.models.towers.dinotxt import DinoTxtText, patch_half
from ovseg.models.towers.groupvit import GroupVitVision
from ovseg.models.towers.tips import TipsVision

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


class FoundFeatures(NamedTuple):
    """`Found`, what positions of two images are compared by, and what classes are taught on.

    Attributes:
        features: float [B, N, D], on a grid that may be coarser by a whole factor.
        stages: float [B, N, S], on the same grid.
        weights: float [B, h*w, W]; embeddings then are [B, N, C].
    """

    embedding: Tensor
    image_embedding: Tensor
    assignment: Tensor
    scores: Tensor
    groups: Tensor
    labels: Tensor
    features: Tensor
    stages: Tensor
    weights: Tensor


class FoundHeads(NamedTuple):
    """`Found`, and what an aligned model's attention heads see.

    Attributes:
        heads: embeddings of what they see, float [B, A, C].
        attention: logits of where they look, float [B, A, h*w].
    """

    embedding: Tensor
    image_embedding: Tensor
    assignment: Tensor
    scores: Tensor
    groups: Tensor
    labels: Tensor
    heads: Tensor
    attention: Tensor


class GroupGraph(nn.Module):
    """Base of models with groups: maps come from the shares of positions in them."""

    scale: Tensor

    def groups(self, pixels: Tensor) -> GroupedImage:
        """Groups, the whole image, and shares of the positions."""
        raise NotImplementedError

    def forward(self, pixels: Tensor, classes: Tensor, threshold: Tensor) -> Found:
        seen = self.groups(pixels)
        embedding, image, shares = seen.embedding, seen.image_embedding, seen.assignment
        assert image is not None and shares is not None
        scores = ovsegmentor_scores(embedding, image, classes, self.scale, threshold)
        maps = shares.unflatten(2, seen.grid)  # [B, G, h, w]
        groups = _upsample(maps, pixels).argmax(dim=1)  # [B, H, W]
        labels = scores.argmax(dim=2).gather(1, groups.flatten(1)).view_as(groups)
        return Found(embedding, image, shares, scores, groups, labels)


class GroupingGraph(GroupGraph):
    """OVSegmentor's image encoder, its scores and its maps."""

    def __init__(self, model: OVSegmentor) -> None:
        super().__init__()
        self.encoder = ProductEncoder(model.image_encoder).eval()
        self.projector = model.image_projector
        self.register_buffer("scale", model.scale.detach().clone())

    def groups(self, pixels: Tensor) -> GroupedImage:
        encoded = self.encoder(pixels)
        # In one call: exporters have lost weights that two calls share.
        rows = torch.cat([encoded.groups, encoded.mean[:, None]], dim=1)
        embedding, image = self.projector(rows).split([encoded.groups.shape[1], 1], dim=1)
        return GroupedImage(embedding, encoded.grid, encoded.binding.soft, image.squeeze(1))


class GroupVitGraph(GroupGraph):
    """GroupViT's vision tower, scored as OVSegmentor is."""

    def __init__(self, vision: GroupVitVision, scale: float) -> None:
        super().__init__()
        self.vision = groupvit_at_any_size(vision)
        self.register_buffer("scale", torch.tensor(scale))

    def groups(self, pixels: Tensor) -> GroupedImage:
        return self.vision(pixels)


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

    def forward(
        self, pixels: Tensor, classes: Tensor, threshold: Tensor
    ) -> "Found | FoundFeatures":
        embedding, grid = self.positions(pixels)
        scores = self.score(embedding, classes, threshold)
        return self.found(embedding, grid, scores, pixels, threshold)

    def found(
        self,
        embedding: Tensor,
        grid: tuple[int, int],
        scores: Tensor,
        pixels: Tensor,
        threshold: Tensor,
    ) -> Found:
        """All outputs, from the positions and their scores, float [B, h*w, 1 + K]."""
        # Where infinity meets a weight of 0, interpolation would make NaN of it.
        finite = scores.clamp_min(LOWEST)
        maps = _upsample(finite.mT.unflatten(2, grid), pixels)  # [B, 1 + K, H, W]
        return Found(
            embedding,
            mean_position(embedding),
            embedding.new_zeros(embedding.shape[0], embedding.shape[1], 0),
            scores,
            _nearest(grid, pixels),
            self.label(maps, threshold),
        )


def mean_position(embedding: Tensor) -> Tensor:
    """Mean over the positions, float [B, C], of [B, P, C].

    As a product, since ONNX Runtime takes a mean along any but the last axis ten times as slowly.
    """
    even = torch.ones_like(embedding[:, :, :1]) / embedding.shape[1]  # [B, P, 1]
    return (even.mT @ embedding).squeeze(1)


class CosineGraph(PositionGraph):
    """Base of models of cosines at the positions and a softmax over the classes at the pixels."""

    scale: float

    def score(self, embedding: Tensor, classes: Tensor, threshold: Tensor) -> Tensor:
        return dense_clip_scores(embedding, classes, self.scale, threshold)

    def label(self, maps: Tensor, threshold: Tensor) -> Tensor:
        return likeliest(maps, threshold)


class DenseClipGraph(CosineGraph):
    """Dense CLIP."""

    def __init__(self, network: DenseImageEncoder, scale: float) -> None:
        super().__init__()
        self.network = with_positions_for_all_sizes(network)
        self.scale = scale

    def positions(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        return self.network(pixels), self.network.grid(pixels.shape[-2], pixels.shape[-1])


class CaptionTowerGraph(CosineGraph):
    """TIPSv2 and dino.txt: sides between two patches are stretched to the next.

    Args:
        vision: from pixels of whole patches to patches, [B, N, C].
        patch: pixels of a patch's side.
        scale: of cosines.
    """

    def __init__(self, vision: nn.Module, patch: int, scale: float) -> None:
        super().__init__()
        self.vision = tips_at_any_size(vision) if isinstance(vision, TipsVision) else vision
        self.patch = patch
        self.scale = scale

    def positions(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        rows, columns = ((side + self.patch - 1) // self.patch for side in pixels.shape[2:])
        size = (rows * self.patch, columns * self.patch)
        whole = functional.interpolate(pixels, size, mode="bicubic", align_corners=False)
        return functional.normalize(self.vision(whole), dim=-1), (rows, columns)


def likeliest(maps: Tensor, threshold: Tensor) -> Tensor:
    """Labels [B, H, W] by a softmax over the classes of [B, 1 + K, H, W]; 0 where unsure."""
    probability, best = maps[:, 1:].softmax(dim=1).max(dim=1)
    return torch.where(probability < threshold, 0, best + 1)


class AlignedGraph(nn.Module):
    """An aligned model's image path, its scores and its maps.

    Args:
        reader: from pixels to what words are compared with.
        scale, bias, clean: of the scores.
        align_corners: how maps are resized.
        softmax: whether words are compared by a softmax at the pixels, as dense CLIP's are.
    """

    def __init__(
        self,
        reader: ImageReader,
        scale: float,
        bias: float,
        clean: float,
        align_corners: bool,
        softmax: bool,
    ) -> None:
        super().__init__()
        self.reader = reader
        self.scale, self.bias, self.clean = scale, bias, clean
        self.align_corners = align_corners
        self.softmax = softmax

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return FoundHeads._fields if self.reader.cleans else Found._fields

    def forward(self, pixels: Tensor, classes: Tensor, threshold: Tensor) -> Found | FoundHeads:
        read: GroupedImage = self.reader(pixels)
        clean = None if read.heads is None else Cleaning(read.heads, read.attention, self.clean)
        if self.softmax:
            scores = dense_clip_scores(read.embedding, classes, self.scale, threshold)
        else:
            rule = (self.scale, self.bias, threshold, clean)
            scores = aligned_scores(read.embedding, classes, *rule)
        shares, groups, labels = self._maps(read, scores, pixels, threshold)
        assert read.image_embedding is not None
        found = Found(read.embedding, read.image_embedding, shares, scores, groups, labels)
        return found if clean is None else FoundHeads(*found, clean.heads, clean.attention)

    def _maps(
        self, read: GroupedImage, scores: Tensor, pixels: Tensor, threshold: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Shares, groups and labels, as `Found` has them."""
        if read.assignment is None:
            maps = scores.clamp_min(LOWEST).mT.unflatten(2, read.grid)
            large = _upsample(maps, pixels, self.align_corners)
            labels = likeliest(large, threshold) if self.softmax else large.argmax(dim=1)
            return scores.new_zeros(*scores.shape[:2], 0), _nearest(read.grid, pixels), labels
        groups = _upsample(read.assignment.unflatten(2, read.grid), pixels).argmax(dim=1)
        labels = scores.argmax(dim=2).gather(1, groups.flatten(1)).view_as(groups)
        return read.assignment, groups, labels


class MeanTextGraph(nn.Module):
    """Prompts to embeddings of phrases, of unit length, by the mean of their features."""

    def __init__(self, model: AlignedModel) -> None:
        super().__init__()
        self.encoder = model.text
        self.projection = model.head.text_projection

    def forward(self, ids: Tensor, mask: Tensor, shares: Tensor) -> Tensor:
        """Token ids and mask, int64 [T, L], and shares of prompts, float [Q, T], to [Q, C]."""
        features = shares @ self.encoder(ids, mask).sentence  # [Q, E]
        return functional.normalize(self.projection(features), dim=-1)


class TextGraph(nn.Module):
    """Prompts to embeddings of unit length."""

    def __init__(self, model: OVSegmentor) -> None:
        super().__init__()
        self.encoder = model.text_encoder
        self.projector = model.text_projector

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Token ids and mask, int64 [T, L], to float [T, C]."""
        return functional.normalize(self.projector(self.encoder(ids, mask).sentence), dim=-1)


class PooledTextGraph(nn.Module):
    """Prompts to embeddings of unit length, by a text tower of transformers that pools them.

    Args:
        model: a `Tipsv2TextModel` or `GroupViTTextTransformer`.
        projection: of what it pools; None for none.
    """

    def __init__(self, model: Any, projection: nn.Module | None = None) -> None:
        super().__init__()
        self.model = model
        self.projection = projection or nn.Identity()

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Token ids and mask, int64 [T, L], to float [T, C]."""
        pooled = self.model(input_ids=ids, attention_mask=mask).pooler_output
        return functional.normalize(self.projection(pooled), dim=-1)


class PatchTextGraph(nn.Module):
    """Prompts to what dino.txt compares patches with, at unit length."""

    def __init__(self, model: DinoTxtText) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Token ids and mask, int64 [T, L], to float [T, C]."""
        end = (mask.sum(dim=1) - 1)[:, None, None]  # the last token before padding
        x = self.model.backbone(ids)
        x = x.gather(1, end.expand(-1, 1, x.shape[2])).squeeze(1)
        return functional.normalize(patch_half(self.model.head.linear_projection(x)), dim=-1)


class ClipTextGraph(nn.Module):
    """Prompts to embeddings of unit length, by a causal tower read at its end token.

    Args:
        model: an open_clip model.

    Raises:
        ModelError: the tower is read in another way, as SigLIP's is.
    """

    causal: Tensor

    def __init__(self, model: Any) -> None:
        super().__init__()
        if getattr(model, "text_pool_type", "") != "argmax" or model.attn_mask is None:
            raise ModelError(
                "only text towers of CLIP's own form can be exported, which end at their end token"
            )
        self.embedding = model.token_embedding
        self.transformer = model.transformer
        self.norm = model.ln_final
        self.positions = model.positional_embedding
        self.projection = model.text_projection
        self.register_buffer("causal", model.attn_mask.clone())

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Token ids and mask, int64 [T, L], to float [T, C]."""
        length = ids.shape[1]
        x = self.embedding(ids) + self.positions[:length]
        x = self.norm(self.transformer(x, attn_mask=self.causal[:length, :length]))
        end = (mask.sum(dim=1) - 1)[:, None, None]  # the last token before padding
        x = x.gather(1, end.expand(-1, 1, x.shape[2])).squeeze(1)
        projected = self.projection(x) if callable(self.projection) else x @ self.projection
        return functional.normalize(projected, dim=-1)


def _upsample(maps: Tensor, pixels: Tensor, align_corners: bool = False) -> Tensor:
    """Maps [B, M, h, w] bilinearly to the size of the pixels, [B, M, H, W]."""
    size = (pixels.shape[-2], pixels.shape[-1])
    return functional.interpolate(maps, size, mode="bilinear", align_corners=align_corners)


def _nearest(grid: tuple[int, int], pixels: Tensor) -> Tensor:
    """Index of the position nearest to each pixel, int64 [B, H, W]."""
    height, width = pixels.shape[-2:]
    row = (2 * torch.arange(height, device=pixels.device) + 1) * grid[0] // (2 * height)
    column = (2 * torch.arange(width, device=pixels.device) + 1) * grid[1] // (2 * width)
    places = row[:, None] * grid[1] + column
    return places.expand(pixels.shape[0], height, width)
