"""Floating-point operations of a step; a multiplication with its addition is two."""

from collections.abc import Callable, Sequence
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


@cache
def image_forward(config: ImageEncoderConfig) -> tuple[float, float]:
    """One image's way to its patches, and the patches' way to the groups.

    Counted while an encoder without memory runs: towers and binding modules are of many kinds.
    """
    with torch.device("meta"), torch.no_grad():
        encoder = build_image_encoder(config).eval()
        pixels = torch.empty(1, 3, config.image_size, config.image_size)
        grid = (config.image_size // encoder.patch,) * 2
        patches = _counted(lambda: encoder.embed_patches(pixels, grid))
        return patches, _counted(lambda: encoder(pixels)) - patches


def _counted(compute: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        compute()
    return float(counter.get_total_flops())


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
    patches, groups = image_forward(config.image)
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
