"""OVSegmentor as a segmentation model: what `ovseg segment` and the evaluation run.

Letters: B image, G group, Q phrase, C embedding width, H W pixels.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ovseg.config.schema import TextEncoderConfig
from ovseg.errors import ModelError
from ovseg.models.checkpoint import CheckpointInfo, content_hash, load_state, read_info
from ovseg.models.interface import (
    GroupedImage,
    ModelCard,
    OpenVocabulary,
    Preprocessing,
)
from ovseg.models.ovsegmentor.build import build_fitting
from ovseg.models.ovsegmentor.network import OVSegmentor
from ovseg.models.scoring import ovsegmentor_scores
from ovseg.models.tensor_files import read_tensors
from ovseg.models.tokenizer import (
    CLIP_PREFIX,
    ForeignTokenizer,
    Tokenizer,
    load_tokenizer,
)

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
SHORT_SIDE = 448
WINDOW = 448
STRIDE = 224
TEXTS_PER_BATCH = 256
RELEASED_SUFFIXES = frozenset({".pth", ".pt"})


class Predictor(OpenVocabulary):
    """A trained OVSegmentor behind the interface of inference.

    Args:
        model: the modules; put into evaluation mode.
        tokenizer: of the text encoder.
        card: what the model is.
        templates: prompt templates used unless the caller brings others.
        threshold: background threshold used unless the caller brings another. The published ones
            are 0.95 for PASCAL VOC, 0.9 for COCO-Object and 0.35 for PASCAL Context.
    """

    def __init__(
        self,
        model: OVSegmentor,
        tokenizer: Tokenizer,
        card: ModelCard,
        templates: tuple[str, ...] = ("a photo of a {}.",),
        threshold: float = 0.9,
    ) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self._card = card
        self._templates = templates
        self._threshold = threshold

    @property
    def card(self) -> ModelCard:
        return self._card

    @property
    def preprocessing(self) -> Preprocessing:
        return Preprocessing(
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            short_side=SHORT_SIDE,
            window=WINDOW,
            stride=STRIDE,
            multiple_of=self.model.image_encoder.patch,
        )

    @property
    def templates(self) -> tuple[str, ...]:
        return self._templates

    @property
    def threshold(self) -> float:
        return self._threshold

    def to(self, device: str) -> "Predictor":
        self.model.to(device)
        return self

    def from_numpy(self, values: np.ndarray) -> Tensor:
        """A tensor on the model's device; at least float32, whatever the weights are."""
        precision = torch.float64 if self._weight.dtype == torch.float64 else torch.float32
        return torch.from_numpy(values).to(self._weight.device, precision)

    @property
    def tower(self) -> nn.Module:
        """The image encoder."""
        return self.model.image_encoder

    @torch.no_grad()
    def encode_image(self, pixels: Tensor) -> GroupedImage:
        """Group normalised images, float [B, 3, H, W], in one pass of the encoder."""
        return self.look(pixels)

    def look(self, pixels: Tensor) -> GroupedImage:
        """As `encode_image`, with gradients for the weights that want them."""
        encoded = self.model.encode_image(pixels.to(self._weight))
        return GroupedImage(
            embedding=_precise(self.model.embed_groups(encoded.groups)),
            grid=encoded.grid,
            assignment=_precise(encoded.binding.soft),
            image_embedding=_precise(self.model.embed_image(encoded.groups)),
        )

    @torch.no_grad()
    def encode_text(self, phrases: Sequence[str], templates: Sequence[str]) -> Tensor:
        """Class embeddings, unit length, float [Q, C]: the mean over templates, renormalised."""
        prompts = [template.format(phrase) for phrase in phrases for template in templates]
        embedded = [
            self._embed(prompts[start : start + TEXTS_PER_BATCH])
            for start in range(0, len(prompts), TEXTS_PER_BATCH)
        ]
        by_phrase = torch.cat(embedded).unflatten(0, (len(phrases), len(templates)))
        return functional.normalize(by_phrase.mean(dim=1), dim=-1)

    @torch.no_grad()
    def score(
        self, grouped: GroupedImage, class_embeddings: Tensor, threshold: float | None
    ) -> Tensor:
        """Scores of background and phrases per group, float [B, G, 1 + Q]."""
        if grouped.image_embedding is None:
            raise ModelError("scores need the image embedding that encode_image returns")
        return ovsegmentor_scores(
            grouped.embedding,
            grouped.image_embedding,
            torch.as_tensor(class_embeddings).to(grouped.embedding),
            self.model.scale.to(grouped.embedding),
            threshold,
        )

    def _embed(self, prompts: list[str]) -> Tensor:
        tokens = self.tokenizer(prompts)
        device = self._weight.device
        encoded = self.model.encode_text(tokens.ids.to(device), tokens.mask.to(device))
        return functional.normalize(_precise(self.model.embed_text(encoded.sentence)), dim=-1)

    @property
    def _weight(self) -> Tensor:
        """A parameter, for the device and precision that inputs must have."""
        return self.model.image_encoder.group_tokens


def _precise(x: Tensor) -> Tensor:
    """At least float32: scores of half precision would tie."""
    return x if x.dtype == torch.float64 else x.float()


def read_model(path: Path) -> Predictor:
    """Build the model that a checkpoint describes and load its weights.

    Raises:
        ModelError: no checkpoint of ovseg, damaged, or without a tokenizer in it or elsewhere.
    """
    if path.suffix in RELEASED_SUFFIXES:
        raise ModelError(
            f"{path}: a released checkpoint is converted before it is used: "
            f"ovseg models convert {path} {path.with_suffix('.safetensors')}"
        )
    info = read_info(path)
    if info.model_class != "OVSegmentor":
        raise ModelError(
            f"{path}: holds a {info.model_class or 'model without a name'}, which cannot segment"
        )
    recipe = info.recipe
    model = build_fitting(recipe.model, info.tensors, str(path), recipe.loss.contrastive)
    load_state(model, read_tensors(path), str(path))
    card = ModelCard(
        name=str(path),
        kind="ovsegmentor",
        description=info.description or "OVSegmentor, learned from images and captions",
        licence=info.licence,
        content_hash=content_hash(path),
    )
    return Predictor(model, tokenizer_of(path, info, info.recipe.model.text), card)


def tokenizer_of(path: Path, info: CheckpointInfo, text: TextEncoderConfig) -> Tokenizer:
    """The tokenizer that a checkpoint brings, else the one that its text encoder's section names.

    Raises:
        ModelError: it neither brings nor names one, or it is neither here nor reachable.
    """
    if info.tokenizer is not None:
        return ForeignTokenizer(info.tokenizer, text.max_tokens, str(path))
    clip = text.encoder if text.encoder.startswith(CLIP_PREFIX) else ""
    name = text.tokenizer or clip or text.encoder
    if not name:
        raise ModelError(
            f"{path}: it neither brings nor names a tokenizer, so it cannot read class names; "
            "convert it again with --set model.text.tokenizer=NAME"
        )
    return load_tokenizer(name, text.revision, text.max_tokens)
