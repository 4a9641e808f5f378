"""TIPSv2 (arXiv 2604.12012), by transformers' own modules, read at its patches.

Letters: B image, N patch, T token (two class tokens in front), P prompt, L token of text, D width.

In the last block each patch attends to itself alone (the values trick), with residuals and MLP as
trained: what the authors' zero-shot segmentation does.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ovseg.errors import MissingDependencyError, ModelError
from ovseg.files import file_digest
from ovseg.models.checkpoint import check_finite
from ovseg.models.interface import ModelCard, Preprocessing
from ovseg.models.towers.caption_tower import CaptionTower, Towers

TEMPLATES = (
    "itap of a {}.",
    "a bad photo of a {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
    "a photo of many {}.",
    "a photo of {}s.",
)
"""CLIP's seven for ImageNet and two for several things."""

LONGEST_TEXT = 64


class TipsVision(nn.Module):
    """transformers' vision tower, read by the values of its last block.

    Args:
        model: a `Tipsv2VisionModel`.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.patch = int(model.config.patch_size)
        self.prefix = 1 + int(model.config.num_register_tokens)

    def forward(self, pixels: Tensor) -> Tensor:
        """Patches after the final norm, float [B, N, D]."""
        x = self.before_last(pixels)
        last = self.model.encoder.layer[-1]
        values = last.attention.o_proj(last.attention.v_proj(last.norm1(x)))
        x = x + last.layer_scale1(values)
        x = x + last.layer_scale2(last.mlp(last.norm2(x)))
        return self.model.layernorm(x)[:, self.prefix :]

    def before_last(self, pixels: Tensor) -> Tensor:
        """Tokens before the last block, [B, T, D]."""
        x = self.model.embeddings(pixels)
        for layer in self.model.encoder.layer[:-1]:
            x = layer(x)
        return x


class TipsText:
    """transformers' text tower behind its tokenizer.

    Args:
        model: a `Tipsv2TextModel`.
        tokenizer: a `Tipsv2Tokenizer`, which writes all in small letters.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """Means over the tokens of each prompt, float [P, D]."""
        found = self.tokenizer(
            list(prompts),
            padding=True,
            truncation=True,
            max_length=LONGEST_TEXT,
            return_tensors="pt",
        )
        return self.of_tokens(found["input_ids"], found["attention_mask"])

    def of_tokens(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Of tokens [P, L], where `mask` is 1."""
        where = next(self.model.parameters()).device
        ids, mask = ids.to(where), mask.to(where)
        return self.model(input_ids=ids, attention_mask=mask).pooler_output

    def to(self, device: str) -> "TipsText":
        self.model.to(device)
        return self


def read_tips(folder: Path, name: str) -> CaptionTower:
    """A model from the files of its repository on the hub.

    Raises:
        ModelError: the folder does not hold what it should.
        MissingDependencyError: transformers is too old to know TIPSv2.
    """
    try:
        from transformers import AutoTokenizer, Tipsv2Model
    except ImportError as error:
        raise MissingDependencyError("transformers>=5.14", "torch", "TIPSv2") from error
    try:
        model, told = Tipsv2Model.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers, torch and safetensors each have their own
        raise ModelError(f"{folder}: cannot be loaded as TIPSv2: {_first_line(error)}") from error
    check_complete(told, folder, optional={"temperature"})
    check_finite(dict(model.named_parameters()), str(folder))
    digest = file_digest(folder / "model.safetensors")
    return tips_model(model, tokenizer, name, digest)


def tips_model(model: Any, tokenizer: Any, name: str, digest: str) -> CaptionTower:
    """From transformers' model and tokenizer.

    Args:
        digest: of the weights.
    """
    vision = TipsVision(model.vision_model)
    side = vision.patch * 32
    return CaptionTower(
        Towers(
            vision=vision,
            text=TipsText(model.text_model, tokenizer),
            patch=vision.patch,
            preprocessing=Preprocessing(
                mean=(0.0, 0.0, 0.0),
                std=(255.0, 255.0, 255.0),
                short_side=side,
                window=side,
                stride=side * 3 // 4,
                resample="bicubic",
            ),
            templates=TEMPLATES,
            card=ModelCard(
                name=name,
                kind="tipsv2",
                description="TIPSv2, trained on captions and patches, read at its patches by the "
                "values of its last block",
                licence="Apache-2.0",
                content_hash=digest,
            ),
        )
    )


def check_complete(told: dict[str, Any], where: Path, optional: set[str] | None = None) -> None:
    """Refuse weights that do not fit what transformers made for them.

    Raises:
        ModelError: naming a few keys.
    """
    missing = set(told.get("missing_keys", ())) - (optional or set())
    odd = {
        "missing": missing,
        "unknown": set(told.get("unexpected_keys", ())),
        "of another size": {str(each[0]) for each in told.get("mismatched_keys", ())},
    }
    for what, keys in odd.items():
        if keys:
            few = ", ".join(sorted(keys)[:3])
            raise ModelError(f"{where}: {len(keys)} weights are {what}, such as {few}")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
