"""An aligned model as a segmentation model: what `ovseg segment` and the evaluation run.

Letters: B image, N position, A attention head, D tower width, G group, Q phrase, C embedding width,
E text tower width.
"""

from collections.abc import Mapping, Sequence
from math import lcm
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ovseg.config.aligned import ReadingConfig
from ovseg.config.schema import ModelConfig
from ovseg.errors import ModelError
from ovseg.models.aligned.aligned_model import AlignedModel
from ovseg.models.aligned.assembly import build_head, build_text, build_vision, located
from ovseg.models.aligned.vision import VisionFeatures
from ovseg.models.checkpoint import (
    ALIGNED,
    check_shapes,
    content_hash,
    load_state,
    read_info,
    shapes_of,
)
from ovseg.models.interface import (
    DenseReading,
    GroupedImage,
    ModelCard,
    OpenVocabulary,
    Preprocessing,
)
from ovseg.models.mixing import mixed
from ovseg.models.normalisation import IMAGENET
from ovseg.models.ovsegmentor.predictor import tokenizer_of
from ovseg.models.scoring import Cleaning, aligned_scores, dense_clip_scores
from ovseg.models.tensor_files import read_tensors
from ovseg.models.tokenizer import Tokenizer
from ovseg.models.without_memory import without_memory

TEXTS_TOGETHER = 256


class ImageReader(nn.Module):
    """The image path of an aligned model, from pixels to what words are compared with.

    Args:
        model: the towers and the head.
        reading: how it is read.
    """

    def __init__(self, model: AlignedModel, reading: ReadingConfig) -> None:
        super().__init__()
        self.vision = model.vision
        self.head = model.head
        self.prior = reading.prior
        self.sharpness, self.rounds = reading.sharpness, reading.mixing
        self.groups = reading.maps == "groups"
        self.cleans = reading.clean > 0 and model.vision.heads > 0 and not self.groups

    def forward(self, pixels: Tensor) -> GroupedImage:
        """Of images in ImageNet's normalisation, float [B, 3, H, W]."""
        found = self.vision.features(pixels, heads=self.cleans)
        if self.groups:
            return self._grouped(found)
        embedded = self.head.embed_positions(found.tokens)  # [B, N, C]
        image = self.head.embed_image(found.tokens, embedded)  # [B, C]
        positions = self.head.comparable(embedded)
        if self.prior:  # cosines with the image are added where words are compared with positions
            positions = positions + self.prior * functional.normalize(image, dim=-1)[:, None]
        if self.rounds:
            features = self.head.prepared(found.tokens)
            positions = mixed(positions, features, self.sharpness, self.rounds)
        heads = self._heads(found) if self.cleans else None
        attention = found.attention if self.cleans else None
        return GroupedImage(positions, found.grid, None, image, heads, attention)

    def _grouped(self, found: VisionFeatures) -> GroupedImage:
        encoded = self.head.group(found.tokens, found.grid)
        groups = self.head.comparable(self.head.embed_groups(encoded.groups))
        return GroupedImage(groups, found.grid, encoded.binding.soft, groups.mean(dim=1))

    def _heads(self, found: VisionFeatures) -> Tensor:
        """What each head sees, weighted by its logits as they are, [B, A, C], unit length."""
        assert found.attention is not None
        seen = found.attention @ found.tokens / found.tokens.shape[1]  # [B, A, D]
        return functional.normalize(self.head.embed_positions(seen), dim=-1)


class AlignedPredictor(OpenVocabulary):
    """A trained aligned model behind the interface of inference.

    Args:
        model: the towers and the head; put into evaluation mode.
        config: the model's section.
        tokenizer: of the text tower.
        card: what the model is.
    """

    def __init__(
        self, model: AlignedModel, config: ModelConfig, tokenizer: Tokenizer, card: ModelCard
    ) -> None:
        assert config.aligned is not None
        self.model = model.eval()
        self.config = config
        self.settings = config.aligned.reading
        self.scales = self.settings.scales
        self.image_size = config.aligned.vision.image_size
        self.reader = ImageReader(model, self.settings).eval()
        self.tokenizer = tokenizer
        self.card = card

    @property
    def preprocessing(self) -> Preprocessing:
        reading, step = self.settings, self.model.vision.multiple_of
        red, green, blue = (value * 255 for value in IMAGENET.mean)
        return Preprocessing(
            mean=(red, green, blue),
            std=(IMAGENET.std[0] * 255, IMAGENET.std[1] * 255, IMAGENET.std[2] * 255),
            short_side=reading.short_side or self.image_size,
            window=reading.window,
            stride=reading.stride,
            multiple_of=lcm(step, self.model.vision.patch),
            resample=reading.resample,
        )

    @property
    def templates(self) -> tuple[str, ...]:
        return self.settings.templates

    @property
    def threshold(self) -> float:
        return self.settings.threshold

    @property
    def align_corners(self) -> bool:
        """Whether the outermost positions lie on a window's outermost pixels."""
        return self.settings.align_corners

    @property
    def reading(self) -> DenseReading:
        """How positions are compared with words, under the rule softmax alone (`is_dense`)."""
        if self.settings.rule != "softmax":
            raise AttributeError("reading")
        return DenseReading(self.scale, background=self.settings.background)

    @property
    def scale(self) -> float:
        """What cosines are multiplied by in front of the sigmoid or the softmax."""
        return self.settings.scale or float(self.model.head.scale.detach())

    @property
    def bias(self) -> float:
        """What is added to them there."""
        return 0.0 if self.settings.scale else float(self.model.head.bias.detach())

    def to(self, device: str) -> "AlignedPredictor":
        self.model.to(device)
        return self

    def from_numpy(self, values: np.ndarray) -> Tensor:
        """A float32 tensor on the model's device."""
        return torch.from_numpy(values).to(self._device, torch.float32)

    @property
    def tower(self) -> nn.Module:
        """The vision tower."""
        return self.model.vision

    @torch.inference_mode()
    def encode_image(self, pixels: Tensor) -> GroupedImage:
        """Positions, or groups, of images in ImageNet's normalisation, float [B, 3, H, W]."""
        return self.look(pixels)

    def look(self, pixels: Tensor) -> GroupedImage:
        """As `encode_image`, with gradients for the weights that want them."""
        grouped: GroupedImage = self.reader(pixels)
        return grouped

    @torch.inference_mode()
    def encode_text(self, phrases: Sequence[str], templates: Sequence[str]) -> Tensor:
        """Class embeddings, unit length, float [Q, C]: of the mean of the prompts' features."""
        prompts = [template.format(phrase) for phrase in phrases for template in templates]
        encoded = [
            self._features(prompts[start : start + TEXTS_TOGETHER])
            for start in range(0, len(prompts), TEXTS_TOGETHER)
        ]
        features = torch.cat(encoded).unflatten(0, (len(phrases), len(templates))).mean(dim=1)
        return functional.normalize(self.model.embed_text_features(features), dim=-1)

    @torch.inference_mode()
    def score(
        self, grouped: GroupedImage, class_embeddings: Tensor, threshold: float | None
    ) -> Tensor:
        """Scores of background (constant) and phrases, float [B, N or G, 1 + Q]."""
        clean = None
        if grouped.heads is not None:
            clean = Cleaning(grouped.heads, grouped.attention, self.settings.clean)
        words = torch.as_tensor(class_embeddings).to(grouped.embedding)
        if self.settings.rule == "softmax":
            return dense_clip_scores(grouped.embedding, words, self.scale, threshold)
        return aligned_scores(grouped.embedding, words, self.scale, self.bias, threshold, clean)

    def _features(self, prompts: Sequence[str]) -> Tensor:
        """The text tower's features of prompts, float [P, E]."""
        tokens = self.tokenizer(prompts)
        encoded = self.model.encode_text(tokens.ids.to(self._device), tokens.mask.to(self._device))
        return encoded.sentence.float()

    @property
    def _device(self) -> torch.device:
        return self.model.head.bias.device


def read_aligned(path: Path) -> AlignedPredictor:
    """Build the model that a checkpoint describes, find its towers and load its weights.

    Raises:
        ModelError: no checkpoint of an aligned model, damaged, or its towers are not those it was
            trained on.
        DownloadError: a tower is not here and cannot be fetched.
    """
    info = read_info(path)
    config = info.recipe.model
    if info.model_class != ALIGNED or config.aligned is None:
        raise ModelError(f"{path}: holds a {info.model_class}, which is no aligned model")
    tensors = read_tensors(path)
    vision, text = _part(tensors, "vision."), _part(tensors, "text.")
    head, where = _part(tensors, "head."), str(path)
    with without_memory():  # what a file claims is built without memory first
        if vision:
            check_shapes(build_vision(config.aligned), shapes_of(vision), where)
        if text:
            check_shapes(build_text(config), shapes_of(text), where)
    vision_tower = build_vision(config.aligned, pretrained=not vision)
    text_tower = build_text(config, pretrained=not text)
    with without_memory():
        check_shapes(build_head(config, vision_tower, text_tower.width), shapes_of(head), where)
    model = AlignedModel(
        vision_tower, text_tower, build_head(config, vision_tower, text_tower.width)
    )
    load_aligned_state(model, tensors, where)
    model.requires_grad_(False)
    card = ModelCard(
        name=str(path),
        kind="aligned",
        description=info.description or "frozen towers, aligned by images and captions",
        licence=info.licence,
        content_hash=content_hash(path),
    )
    tokenizer = tokenizer_of(path, info, located(config.text))
    return AlignedPredictor(model, config, tokenizer, card)


def load_aligned_state(model: AlignedModel, tensors: Mapping[str, Tensor], where: str) -> None:
    """Put back what `write_aligned` wrote; a tower that is not in it stays as it is.

    Raises:
        ModelError: as `load_state`.
    """
    for part, prefix in ((model.vision, "vision."), (model.text, "text.")):
        state = _part(tensors, prefix)
        if state:
            load_state(part, state, where)
    load_state(model.head, _part(tensors, "head."), where)


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
