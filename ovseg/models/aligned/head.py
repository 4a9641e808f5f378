"""The part of an aligned model that is trained: what joins two frozen towers.

Letters: B image or text, N position, A attention head, D tower width, E text tower width, C
embedding width, G group, W width of the grouping, F width of the entity decoder.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ovseg.errors import ModelError
from ovseg.models.ovsegmentor.binding import ReleasedBinding, SlotBinding
from ovseg.models.ovsegmentor.entity_decoder import EntityDecoder
from ovseg.models.ovsegmentor.image_encoder import EncodedImage, ImageEncoder
from ovseg.models.ovsegmentor.network import Projector
from ovseg.models.ovsegmentor.text_encoder import EncodedText
from ovseg.models.positions import resize_at_any_size
from ovseg.models.projection import Projection

_LEAST_DEVIATION = 1e-6
_FARTHEST = 5.0  # deviations from the mean


class FeatureGroupEncoder(ImageEncoder):
    """`ImageEncoder` whose patches are features that a tower found before.

    Args:
        features: width D of the features.
        binding, encoder: as `ImageEncoder`; `patch` is the tower's.
    """

    def __init__(
        self, features: int, binding: ReleasedBinding | SlotBinding, **encoder: Any
    ) -> None:
        super().__init__(binding, **encoder)
        del self.patch_embed
        self.adapt = nn.Linear(features, self.group_tokens.shape[1])

    def position_at(self, grid: tuple[int, int]) -> Tensor:
        """As the base's, as products: no line of them asks for a size, which graphs need."""
        return resize_at_any_size(self.position, grid, prefix=0, enlargement=0.0)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> EncodedImage:  # type: ignore[override]
        """Group features of positions, float [B, N, D], of a grid of (h, w)."""
        return self.group(self.adapt(tokens) + self.position_at(grid), grid)


class GroupingHead(nn.Module):
    """The paper's grouping on frozen features, and what its losses need.

    Args:
        encoder: makes the groups.
        projector: group features to embeddings.
        entity_decoder: completes masked entities from the groups.
        bridge_projector: its answers to embeddings.
    """

    def __init__(
        self,
        encoder: FeatureGroupEncoder,
        projector: Projector,
        entity_decoder: EntityDecoder,
        bridge_projector: Projector,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = projector
        self.entity_decoder = entity_decoder
        self.bridge_projector = bridge_projector


class AlignedHead(nn.Module):
    """All that is trained, by named steps. It takes what the towers found, never their inputs.

    Args:
        text_projection: E to C.
        position_projection: D to C.
        image_projection: of the mean over the positions, D to C; None for the mean of embeddings.
        standardised: D, to bring every channel of positions to mean 0 and deviation 1; 0 leaves
            them.
        grouping: groups positions; None for none.
        width: C.
        scale, bias: of the logits; where they start, if they are learned.
        learned: whether scale and bias are trained.
        max_scale: upper bound of the scale.
        offset: learn how likely a word is wherever one looks.
        separate: images and captions have scales of their own.
    """

    scale_log: Tensor
    bias: Tensor
    token_mean: Tensor
    token_deviation: Tensor

    def __init__(
        self,
        text_projection: Projection,
        position_projection: Projection,
        grouping: GroupingHead | None = None,
        width: int = 256,
        image_projection: Projection | None = None,
        standardised: int = 0,
        scale: float = 1 / 0.07,
        bias: float = 0.0,
        learned: bool = False,
        max_scale: float = 100.0,
        offset: bool = False,
        separate: bool = False,
    ) -> None:
        super().__init__()
        self.text_projection = text_projection
        self.position_projection = position_projection
        self.image_projection = image_projection
        self.grouping = grouping
        self.standardised = standardised > 0
        if self.standardised:
            self.register_buffer("token_mean", torch.zeros(standardised))
            self.register_buffer("token_deviation", torch.ones(standardised))
        self.max_scale = max_scale
        self.scale_log = nn.Parameter(torch.tensor(math.log(scale)), requires_grad=learned)
        self.bias = nn.Parameter(torch.tensor(float(bias)), requires_grad=learned)
        logs = torch.full((2,), math.log(scale))
        self.scale_logs = nn.Parameter(logs, requires_grad=learned) if separate else None
        self.offset = nn.Parameter(torch.zeros(width)) if offset else None

    @property
    def scale(self) -> Tensor:
        """What cosines of words and positions are multiplied by, at most `max_scale`, float []."""
        return self.scale_log.exp().clamp_max(self.max_scale)

    @property
    def image_scale(self) -> Tensor:
        """What cosines of captions and images are, float []."""
        return self.scale if self.scale_logs is None else self._separate_scale(0)

    @property
    def caption_scale(self) -> Tensor:
        """What cosines of captions and positions are, float []."""
        return self.scale if self.scale_logs is None else self._separate_scale(1)

    def _separate_scale(self, number: int) -> Tensor:
        assert self.scale_logs is not None
        return self.scale_logs[number].exp().clamp_max(self.max_scale)

    def set_statistics(self, mean: Tensor, deviation: Tensor) -> None:
        """Take over mean and deviation of every channel over positions, float [D] each.

        Raises:
            ModelError: the model takes positions as they are.
        """
        if not self.standardised:
            raise ModelError("this aligned model takes positions as they are: set standardise")
        self.token_mean.copy_(mean)
        self.token_deviation.copy_(deviation.clamp_min(_LEAST_DEVIATION))

    def prepared(self, tokens: Tensor) -> Tensor:
        """Features of positions, [..., D], standardised if the model does that."""
        if not self.standardised:
            return tokens
        return ((tokens - self.token_mean) / self.token_deviation).clamp(-_FARTHEST, _FARTHEST)

    def embed_positions(self, tokens: Tensor) -> Tensor:
        """Embeddings of features of positions or heads, [B, N, D] to [B, N, C], not normalised."""
        embedded: Tensor = self.position_projection(self.prepared(tokens))
        return embedded

    def embed_image(self, tokens: Tensor, positions: Tensor | None = None) -> Tensor:
        """Embedding of an image by the features of its positions, [B, N, D] to [B, C].

        Args:
            positions: their embeddings, where they are known, float [B, N, C].

        Returns:
            not normalised. Without a projection the mean of the unit embeddings.
        """
        if self.image_projection is not None:
            return self.image_projection(self.prepared(tokens).mean(dim=1))
        positions = self.embed_positions(tokens) if positions is None else positions
        return functional.normalize(positions, dim=-1).mean(dim=1)

    def embed_text_features(self, features: Tensor, noise: float = 0.0) -> Tensor:
        """Embeddings of the text tower's features, [..., E] to [..., C], not normalised.

        Args:
            noise: as `Projection.forward`.
        """
        embedded: Tensor = self.text_projection(features, noise)
        return embedded

    def word_offsets(self, words: Tensor) -> Tensor:
        """What is added to a word's logits, from embeddings of unit length [..., C] to [...]."""
        if self.offset is None:
            return words.new_zeros(words.shape[:-1])
        return words @ self.offset

    def comparable(self, embeddings: Tensor) -> Tensor:
        """Embeddings [B, N, C] brought to where their product with a word is what counts.

        That product is the cosine and, by the scale, the word's offset: `scale` times it, plus
        `bias`, is the logit.
        """
        unit = functional.normalize(embeddings, dim=-1)
        return unit if self.offset is None else unit + self.offset / self.scale

    def group(self, tokens: Tensor, grid: tuple[int, int]) -> EncodedImage:
        """Group features of positions [B, N, D] of a grid (h, w).

        Raises:
            ModelError: the model has no grouping, as for the methods below.
        """
        encoded: EncodedImage = self._grouped().encoder(self.prepared(tokens), grid)
        return encoded

    def embed_groups(self, groups: Tensor) -> Tensor:
        """Embeddings of group features [B, G, W], float [B, G, C], not normalised."""
        return self._grouped().projector(groups)

    def complete_entities(self, masked: EncodedText, image: EncodedImage) -> Tensor:
        """What the groups say about a caption's masked words, float [B, F]; see `embed_answer`."""
        answer: Tensor = self._grouped().entity_decoder(masked.tokens, masked.mask, image.groups)
        return answer

    def embed_answer(self, answer: Tensor) -> Tensor:
        """Embedding of what `complete_entities` found, float [B, C], not normalised."""
        return self._grouped().bridge_projector(answer)

    def _grouped(self) -> GroupingHead:
        if self.grouping is None:
            raise ModelError("this aligned model has no grouping: set model.aligned.grouping")
        return self.grouping
