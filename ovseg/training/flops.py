"""Floating-point operations of a step, from shapes; a multiplication with its addition is two.

Letters: T token, D width, N patch, G group.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from ovseg.config.schema import ImageEncoderConfig, ModelConfig, TextEncoderConfig
from ovseg.models.ovsegmentor.build import build_image_encoder
from ovseg.training.batch import Batch

# Dense bf16 peaks of the makers' data sheets, FLOP/s.
_PEAKS = (
    ("H100 PCIe", 756e12),
    ("H100", 989e12),
    ("H200", 989e12),
    ("GH200", 989e12),
    ("B200", 2250e12),
    ("A100", 312e12),
    ("A800", 312e12),
    ("L40S", 362e12),
    ("L4", 121e12),
    ("4090", 165e12),
    ("V100", 125e12),
)


@dataclass(frozen=True)
class TextSizes:
    """Sizes of a text transformer."""

    width: int = 768
    depth: int = 12
    mlp_width: int = 3072


def patches_forward(config: ImageEncoderConfig) -> float:
    """From an image to its patches: the patch embedding, or the tower that `init` names."""
    if config.init:
        return _tower(config)
    patches = (config.image_size // config.patch) ** 2
    return 2 * patches * 3 * config.patch**2 * config.width


def groups_forward(config: ImageEncoderConfig) -> float:
    """From the patches to the groups: both stages and the binding module between them."""
    width, ratio = config.width, config.mlp_ratio
    patches = (config.image_size // config.patch) ** 2
    first = config.depths[0] * block(patches + config.group_tokens, width, ratio)
    second = config.depths[1] * block(config.groups, width, ratio)
    return first + second + _binding(config, patches)


@cache
def _tower(config: ImageEncoderConfig) -> float:
    """Counted while a tower without memory runs: towers are of many kinds."""
    with torch.device("meta"):
        encoder = build_image_encoder(config)
        pixels = torch.empty(1, 3, config.image_size, config.image_size)
        side = config.image_size // encoder.patch
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            encoder.embed_patches(pixels, (side, side))
    return float(counter.get_total_flops())


def _binding(config: ImageEncoderConfig, patches: int) -> float:
    width, groups = config.width, config.groups
    mixing = 2 * width * (config.group_tokens + groups) * width // 2
    # Keys and values of the patches, once for each of the released variant's two attentions.
    attentions = 2 if config.binding == "released" else 1
    keys = attentions * 2 * 2 * patches * width**2
    rounds = 2 if config.binding == "released" else config.slot_iterations
    return mixing + keys + rounds * block(groups, width, config.mlp_ratio)


def block(tokens: int, width: int, mlp_ratio: float) -> float:
    """One transformer block over so many tokens."""
    linear = 2 * tokens * width**2 * (4 + 2 * mlp_ratio)
    return linear + 4 * tokens**2 * width


def text_forward(sizes: TextSizes, tokens: int) -> float:
    """The text encoder's forward pass of one text, padding included."""
    return sizes.depth * block(tokens, sizes.width, sizes.mlp_width / sizes.width)


def text_sizes(config: TextEncoderConfig) -> TextSizes:
    """Those of the section, or BERT-base's where it leaves them to the encoder's name."""
    if config.width is None or config.depth is None or config.mlp_width is None:
        return TextSizes()
    return TextSizes(config.width, config.depth, config.mlp_width)


def projector(config: ModelConfig, width: int) -> float:
    """One row through a projector."""
    return 2 * config.projector_width * (width + config.embedding_width)


@dataclass(frozen=True)
class Cost:
    """FLOPs of a step per pair, by what they are for; backward passes cost twice the forward."""

    image: float
    text: float
    momentum: float
    heads: float

    @property
    def total(self) -> float:
        return self.image + self.text + self.momentum + self.heads


def pair_cost(
    config: ModelConfig,
    lengths: Sequence[int],
    frozen_text: bool = False,
    momentum: bool = False,
    parts: int = 1,
) -> Cost:
    """FLOPs of one pair in a step.

    Args:
        lengths: tokens, padding included, of each text that is encoded with gradients.
        momentum: whether a momentum encoder sees the pair's cross image.
        parts: more than one encodes everything a second time.
    """
    sizes = text_sizes(config.text)
    again = 1 if parts > 1 else 0
    texts = sum(text_forward(sizes, length) for length in lengths)
    patches, groups = patches_forward(config.image), groups_forward(config.image)
    frozen = bool(config.image.init) and config.image.init_frozen
    rows = 1 + (config.image.groups if momentum else 0)
    heads = rows * projector(config, config.image.width)
    heads += len(lengths) * projector(config, sizes.width)
    return Cost(
        image=(3 + again) * groups + ((1 if frozen else 3) + again) * patches,
        text=((1 if frozen_text else 3) + again) * texts,
        momentum=patches + groups if momentum else 0.0,
        heads=3 * heads,
    )


def batch_lengths(batch: Batch) -> list[int]:
    """Tokens, padding included, of each kind of text in a batch."""
    texts = [batch.caption]
    if batch.questions is not None:
        texts += [batch.questions.masked, batch.questions.prompt]
    return [text.ids.shape[1] for text in texts]


def peak_flops(device_name: str) -> float | None:
    """Dense bf16 peak of a device, FLOP/s; None if it is not in the table."""
    return next((peak for name, peak in _PEAKS if name in device_name), None)
