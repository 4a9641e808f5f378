"""A dense CLIP model behind the interface that all segmentation models share.

Letters: B image, N position, P prompt, Q phrase, L token, C embedding width, H W pixels, h w grid.
"""

import hashlib
import json
from collections.abc import Sequence
from math import lcm
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovseg.files import file_digest
from ovseg.models.clip.guide import GuideNetwork, load_guide
from ovseg.models.clip.heads import HEADS, Guide, LastBlock, head_defaults, scaled
from ovseg.models.clip.names import ClipName, parse_clip_name
from ovseg.models.clip.tower import OpenClipTower, SiglipTower, image_tower
from ovseg.models.clip.weights import LOCAL_PREFIX, LoadedClip, foreign_tokenizer, load_clip
from ovseg.models.interface import (
    DenseReading,
    GroupedImage,
    ModelCard,
    OpenVocabulary,
    Preprocessing,
)
from ovseg.models.normalisation import Normalisation
from ovseg.models.positions import ENLARGEMENT
from ovseg.models.scoring import dense_clip_scores
from ovseg.models.templates import imagenet_templates
from ovseg.models.trial import try_tokenizer

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

_TOKENIZER_SUFFIXES = (".json", ".txt", ".model")
_MOST_TOKENS = 8_192

LICENCES = {
    "openai": "MIT",
    "laion": "MIT",
    "datacomp": "MIT",
    "commonpool": "MIT",
    "webli": "Apache-2.0",
    "metaclip": "CC-BY-NC-4.0",
}
"""Licence of weights by how their tag begins; others are not asserted."""


class DenseClip(OpenVocabulary):
    """Implements `DenseModel`: the groups are the patches of a CLIP image tower.

    Args:
        loaded: open_clip's model, its tokenizer and where they come from.
        name: the model as asked for: head, precision, faults to keep.
        guide: the network that guides the head `proxyclip`; None for the others.
    """

    def __init__(
        self, loaded: LoadedClip, name: ClipName, guide: GuideNetwork | None = None
    ) -> None:
        tower = image_tower(loaded.model.visual, ENLARGEMENT, by_count=name.as_released)
        self._text_model = loaded.model
        self._tokenizer = loaded.tokenizer
        self._foreign = _foreign_tokenizer(loaded)
        self._dtype = _DTYPES[name.precision]
        self.network = DenseImageEncoder(tower, name.head, guide, name.as_released)
        self.network.eval().requires_grad_(False)
        self._image_path_to(self._dtype)
        defaults = head_defaults(name.head)
        trained_at = int(loaded.model.visual.image_size[0])
        self.reading = DenseReading(
            defaults.scale, defaults.pad_to or tower.patch, defaults.background
        )
        self.threshold = defaults.threshold
        self.preprocessing = Preprocessing(
            mean=_levels(loaded.spec.mean),
            std=_levels(loaded.spec.std),
            short_side=scaled(defaults.short_side, trained_at, tower.patch),
            window=scaled(defaults.window, trained_at, tower.patch),
            stride=scaled(defaults.stride, trained_at, tower.patch),
            multiple_of=lcm(tower.patch, guide.patch) if guide else tower.patch,
        )
        self.card = _card(loaded, name)

    @classmethod
    def load(cls, name: str) -> "DenseClip":
        """Load by name, as `clip-b16` or `clip:ViT-B-16/openai,head=sclip`.

        Raises:
            UsageError: the name or one of its options makes no sense.
            DownloadError: weights are not here and cannot be fetched.
            ModelError: a file does not hold what its name promises, or a tower has no patches.
        """
        asked = parse_clip_name(name)
        loaded = load_clip(asked)
        guide = None
        if asked.head == "proxyclip":
            guide = load_guide(asked.backbone, Normalisation(loaded.spec.mean, loaded.spec.std))
        return cls(loaded, asked, guide)

    @property
    def text_model(self) -> Any:
        """open_clip's model, for its text tower."""
        return self._text_model

    @property
    def tokenizer(self) -> Any:
        """open_clip's tokenizer of the text tower."""
        return self._tokenizer

    @property
    def templates(self) -> tuple[str, ...]:
        """The 80 of ImageNet."""
        return imagenet_templates()

    def to(self, device: str) -> "DenseClip":
        """Move towers and guide to a device and return self."""
        self._text_model.to(device)
        self.network.to(device)
        return self

    def from_numpy(self, values: np.ndarray) -> Tensor:
        """A float32 tensor on the model's device."""
        return torch.from_numpy(values).to(self._device)

    @property
    def tower(self) -> nn.Module:
        """CLIP's image tower."""
        return self.network.tower

    @torch.inference_mode()
    def encode_image(self, pixels: Tensor) -> GroupedImage:
        """Normalised dense features, float32 [B, h*w, C]."""
        return self.look(pixels)

    def look(self, pixels: Tensor) -> GroupedImage:
        """As `encode_image`, with gradients for the weights that want them."""
        height, width = int(pixels.shape[-2]), int(pixels.shape[-1])
        features = self.network(pixels.to(self._dtype))
        return GroupedImage(features, self.network.grid(height, width))

    @torch.inference_mode()
    def encode_text(self, phrases: Sequence[str], templates: Sequence[str]) -> Tensor:
        """Class embeddings in float32, normalised: [Q, C].

        Raises:
            ModelError: the tokenizer of a folder cannot be used.
        """
        if self._foreign is not None:
            prompts = [template.format(phrase) for phrase in phrases for template in templates]
            try_tokenizer(self._foreign, prompts, _MOST_TOKENS, self.card.name)
        return embed_phrases(self._text_model, self._tokenizer, phrases, templates)

    @torch.inference_mode()
    def score(
        self, grouped: GroupedImage, class_embeddings: Tensor, threshold: float | None
    ) -> Tensor:
        """Scaled cosines, [B, h*w, 1 + Q], for whoever compares positions and not pixels.

        The background's column is what a phrase must exceed for its probability at that position
        to reach the threshold. `Segmenter` applies the rule at the pixels (`DenseReading`).
        """
        scale = self.reading.scale
        return dense_clip_scores(grouped.embedding, class_embeddings, scale, threshold)

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device

    def _image_path_to(self, dtype: torch.dtype) -> None:
        """Text stays in float32: its embeddings are cached and shared by all precisions."""
        self.network.to(dtype)


def _levels(values: tuple[float, float, float]) -> tuple[float, float, float]:
    """Constants in 0..1 in units of 0..255, rounded as the released implementations do."""
    red, green, blue = (round(value * 255, 3) for value in values)
    return red, green, blue


def _card(loaded: LoadedClip, name: ClipName) -> ModelCard:
    what = f"{name.architecture}/{name.tag}" if name.path is None else str(name.path)
    activation = "quick-GELU" if loaded.spec.config.get("quick_gelu") else "GELU"
    licence = next((text for start, text in LICENCES.items() if name.tag.startswith(start)), "")
    config = json.dumps(loaded.spec.config, sort_keys=True)
    identity = f"{loaded.digest} {config} {_tokenizer_identity(loaded)}"
    return ModelCard(
        name=f"clip:{what}",
        kind="dense-clip",
        description=(
            f"CLIP ({activation}) trained on image-text pairs, read at its patches by "
            f"{name.head}; weights from {loaded.spec.source}"
        ),
        licence=licence or "NOASSERTION",
        content_hash=hashlib.sha256(identity.encode()).hexdigest(),
    )


def _foreign_tokenizer(loaded: LoadedClip) -> str | None:
    """The file that a folder's tokenizer was made of, if it was."""
    name = loaded.spec.tokenizer
    is_folder = name.startswith(LOCAL_PREFIX)
    return foreign_tokenizer(Path(name.removeprefix(LOCAL_PREFIX))) if is_folder else None


def _tokenizer_identity(loaded: LoadedClip) -> str:
    """What tells one tokenizer from another, wherever its files lie."""
    name = loaded.spec.tokenizer
    if not name.startswith(LOCAL_PREFIX):
        return f"{name} {type(loaded.tokenizer).__name__}"
    folder = Path(name.removeprefix(LOCAL_PREFIX))
    files = sorted(path for path in folder.iterdir() if path.suffix in _TOKENIZER_SUFFIXES)
    return " ".join(f"{file.name} {file_digest(file)}" for file in files if file.is_file())


class DenseImageEncoder(nn.Module):
    """The image path of a dense CLIP model; nothing in it depends on the values of tensors.

    Args:
        tower: the CLIP tower.
        head: a name in `HEADS`.
        guide: the network that guides `proxyclip`, None for the other heads.
        as_released: ProxyCLIP's fold of windows that are not square, see `Guide`.
    """

    def __init__(
        self,
        tower: OpenClipTower | SiglipTower,
        head: str,
        guide: GuideNetwork | None = None,
        as_released: bool = False,
    ) -> None:
        super().__init__()
        if (head == "proxyclip") != (guide is not None):
            raise TypeError("a guide goes with the proxyclip head, and only with it")
        self.tower = tower
        self.head = HEADS[head]
        self.guide = guide
        self.as_released = as_released

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the features of an image of these sides in pixels."""
        patch = self.guide.patch if self.guide is not None else self.tower.patch
        return height // patch, width // patch

    def features(self, pixels: Tensor) -> Tensor:
        """Dense features of normalised images [B, 3, H, W], not L2-normalised: [B, N, C]."""
        patch = self.tower.patch
        grid = (pixels.shape[-2] // patch, pixels.shape[-1] // patch)
        guide = None
        if self.guide is not None:
            guide = Guide(self.guide(pixels), self.as_released)
        block = LastBlock(self.tower, self.tower.tokens(pixels), grid, guide)
        return self.tower.embed(self.head(block))

    def forward(self, pixels: Tensor) -> Tensor:
        """L2-normalised dense features in float32: [B, N, C]."""
        return F.normalize(self.features(pixels).float(), dim=-1)


PROMPTS_A_BATCH = 256


def embed_phrases(
    model: Any, tokenizer: Any, phrases: Sequence[str], templates: Sequence[str]
) -> Tensor:
    """Each phrase in each template, encoded, normalised, averaged and normalised: [Q, C]."""
    prompts = [template.format(phrase) for phrase in phrases for template in templates]
    device = next(model.parameters()).device
    batches = [
        F.normalize(encode(model, tokenizer(list(batch)).to(device)).float(), dim=-1)
        for batch in _batches(prompts)
    ]
    each = torch.cat(batches).reshape(len(phrases), len(templates), -1)  # [Q, P, C]
    return F.normalize(each.mean(dim=1), dim=-1)


def encode(model: Any, tokens: Tensor) -> Tensor:
    """Text features of tokens [P, L], not normalised: [P, C].

    CLIP's text tower is causal and read at its end token, so what lies behind the longest prompt
    of the batch changes nothing and is cut off: a few words need 10 of the 77 positions.
    """
    if getattr(model, "text_pool_type", "") != "argmax" or model.attn_mask is None:
        return model.encode_text(tokens)
    length = int(tokens.argmax(dim=-1).max()) + 1  # the end token has the highest number
    tokens = tokens[:, :length]
    x = model.token_embedding(tokens) + model.positional_embedding[:length]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
    x = x[torch.arange(len(x), device=x.device), tokens.argmax(dim=-1)]
    projection = model.text_projection
    return projection(x) if isinstance(projection, torch.nn.Linear) else x @ projection


def _batches(prompts: Sequence[str]) -> list[Sequence[str]]:
    return [prompts[i : i + PROMPTS_A_BATCH] for i in range(0, len(prompts), PROMPTS_A_BATCH)]
