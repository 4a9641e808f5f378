"""GroupViT (Xu et al., CVPR 2022), by transformers' own modules.

Letters: B image, G group, N position, P prompt, Q phrase, D width, C embedding width.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ovseg.errors import ModelError
from ovseg.files import file_digest
from ovseg.models.checkpoint import check_finite
from ovseg.models.interface import GroupedImage, ModelCard, OpenVocabulary, Preprocessing
from ovseg.models.normalisation import IMAGENET
from ovseg.models.scoring import ovsegmentor_scores
from ovseg.models.towers.caption_tower import PROMPTS_A_BATCH, mean_of_prompts
from ovseg.models.towers.tips import check_complete

LONGEST_TEXT = 77
THRESHOLD = 0.95
"""Of the background: the authors' for PASCAL VOC."""


class GroupVitVision(nn.Module):
    """transformers' vision tower with its projection.

    Args:
        model: a `GroupViTVisionTransformer`.
        projection: from [n, D] to [n, C].
    """

    def __init__(self, model: Any, projection: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.projection = projection
        self.patch = int(model.embeddings.patch_size)

    def forward(self, pixels: Tensor) -> GroupedImage:
        """Groups of the last stage at length 1, and the share of each position in them."""
        x = self.model.embeddings(pixels, interpolate_pos_encoding=True)
        seen = self.model.encoder(x, output_attentions=True, return_dict=True)
        groups = self.model.layernorm(seen.last_hidden_state)  # [B, G, D]
        embedding = self._projected(groups.flatten(0, 1)).unflatten(0, groups.shape[:2])
        image = self._projected(groups.mean(dim=1))
        grid = (pixels.shape[-2] // self.patch, pixels.shape[-1] // self.patch)
        return GroupedImage(embedding, grid, _shares(seen.attentions), image)

    def _projected(self, groups: Tensor) -> Tensor:
        """Of [n, D] at length 1, [n, C]."""
        return functional.normalize(self.projection(groups), dim=-1)


class GroupVit(OpenVocabulary):
    """Implements `SegmentationModel`: the groups are those of the last stage.

    Args:
        model: transformers' `GroupViTModel`.
        tokenizer: its tokenizer.
        card: what the model is.
    """

    templates = ("a photo of a {}.",)
    threshold = THRESHOLD

    def __init__(self, model: Any, tokenizer: Any, card: ModelCard) -> None:
        self.model = model.eval().requires_grad_(False)
        self.vision = GroupVitVision(model.vision_model, model.visual_projection).eval()
        self.tokenizer = tokenizer
        self.card = card
        patch = self.vision.patch
        red, green, blue = (255 * value for value in IMAGENET.mean)
        r, g, b = (255 * value for value in IMAGENET.std)
        self.preprocessing = Preprocessing(
            mean=(red, green, blue),
            std=(r, g, b),
            short_side=28 * patch,
            multiple_of=patch,
            window=28 * patch,
            stride=14 * patch,
        )

    def to(self, device: str) -> "GroupVit":
        """Move to a device and return self."""
        self.model.to(device)
        return self

    def from_numpy(self, values: np.ndarray) -> Tensor:
        """A float32 tensor on the model's device."""
        return torch.from_numpy(values).to(self._device)

    @torch.inference_mode()
    def encode_image(self, pixels: Tensor) -> GroupedImage:
        """Groups of normalised images [B, 3, H, W] and the share of each position in them."""
        return self.vision(pixels)

    @torch.inference_mode()
    def encode_text(self, phrases: Sequence[str], templates: Sequence[str]) -> Tensor:
        """Class embeddings in float32, normalised: [Q, C]."""
        prompts = [template.format(phrase) for phrase in phrases for template in templates]
        starts = range(0, len(prompts), PROMPTS_A_BATCH)
        vectors = torch.cat([self._encoded(prompts[at : at + PROMPTS_A_BATCH]) for at in starts])
        return mean_of_prompts(vectors.reshape(len(phrases), len(templates), -1))

    @torch.inference_mode()
    def score(
        self, grouped: GroupedImage, class_embeddings: Tensor, threshold: float | None
    ) -> Tensor:
        """Scores of background and phrases, [B, G, 1 + Q], by the rule OVSegmentor has from it."""
        return ovsegmentor_scores(
            grouped.embedding, grouped.image_embedding, class_embeddings, self.scale, threshold
        )

    @property
    def scale(self) -> float:
        """What cosines are multiplied by."""
        return float(self.model.logit_scale.exp())

    def _encoded(self, prompts: Sequence[str]) -> Tensor:
        found = self.tokenizer(
            list(prompts),
            padding=True,
            truncation=True,
            max_length=LONGEST_TEXT,
            return_tensors="pt",
        )
        ids, mask = (found[key].to(self._device) for key in ("input_ids", "attention_mask"))
        pooled = self.model.text_model(input_ids=ids, attention_mask=mask).pooler_output
        return self.model.text_projection(pooled)

    @property
    def _device(self) -> torch.device:
        return self.model.logit_scale.device


def _shares(attentions: Sequence[Tensor]) -> Tensor:
    """Share of each position in each last group, [B, G, N], from those of stage to stage."""
    shares = attentions[0]  # [B, groups of the first stage, N]
    for later in attentions[1:]:
        shares = later @ shares
    return shares


def read_groupvit(folder: Path, weights: Path, name: str) -> GroupVit:
    """A model from the files of its repository on the hub.

    Raises:
        ModelError: the folder does not hold what it should.
    """
    from transformers import AutoTokenizer, GroupViTModel

    try:
        model, told = GroupViTModel.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=weights.suffix == ".safetensors",
            weights_only=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers, torch and safetensors each have their own
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{folder}: cannot be loaded as GroupViT: {first}") from error
    check_complete(told, folder)
    check_finite(dict(model.named_parameters()), str(folder))
    card = ModelCard(
        name=name,
        kind="groupvit",
        description="GroupViT, learned to group pixels from images and captions",
        licence="see the source",
        content_hash=file_digest(weights),
    )
    return GroupVit(model, tokenizer, card)
