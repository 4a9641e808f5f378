"""What people write after `--model` for a dense CLIP model, and what it means.

clip-b16                                       a short name
clip:ViT-B-16/openai                           open_clip's architecture and weights
clip:/path/to/weights.safetensors,arch=ViT-B-16-quickgelu
clip:/path/to/folder                           with open_clip_config.json in it
clip:ViT-B-16/openai,head=proxyclip,backbone=vit_base_patch8_224.dino,precision=bf16
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from ovseg.errors import UsageError

PREFIX = "clip:"

SHORT_NAMES = {
    "clip-b16": "clip:ViT-B-16-quickgelu/openai",
    "clip-l14": "clip:ViT-L-14-quickgelu/openai",
    "clip-h14": "clip:ViT-H-14/laion2b_s32b_b79k",
    "siglip2-b16": "clip:ViT-B-16-SigLIP2-256/webli",
}

PRECISIONS = ("fp32", "bf16", "fp16")
DEFAULT_BACKBONE = "vit_base_patch8_224.dino"

WEIGHT_NAMES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""What open_clip calls the weights of a model, the form without pickle first."""


@dataclass(frozen=True)
class ClipName:
    """A dense CLIP model as it was asked for.

    Attributes:
        architecture: open_clip's name of the architecture; empty where the file must tell.
        tag: open_clip's name of the weights; empty where `path` is given.
        path: a checkpoint file or a folder, or None.
        head: how the last block is read, a name in `heads.HEADS`.
        backbone: timm model that guides the head `proxyclip`; else unused.
        precision: `fp32`, `bf16` or `fp16`, of the image tower.
        as_released: keep the released code's faults, to compare with its numbers.
    """

    architecture: str = ""
    tag: str = ""
    path: Path | None = None
    head: str = "naclip"
    backbone: str = DEFAULT_BACKBONE
    precision: str = "fp32"
    as_released: bool = False


def is_clip_name(name: str) -> bool:
    """Whether `--model name` means a dense CLIP model."""
    return name.startswith(PREFIX) or name.split(",")[0] in SHORT_NAMES


def parse_clip_name(name: str) -> ClipName:
    """Read the name of a dense CLIP model.

    Raises:
        UsageError: an option is unknown or senseless, or the name is neither a path nor
            ARCHITECTURE/WEIGHTS.
    """
    what, *settings = name.split(",")
    what = SHORT_NAMES.get(what, what).removeprefix(PREFIX)
    options = _read_options(settings)
    path = Path(what).expanduser()
    if path.exists():
        return _with_options(ClipName(options.get("arch", ""), path=path), options)
    if "arch" in options:
        raise UsageError(f"{what}: no such file or folder (arch= goes with a file)")
    architecture, slash, tag = what.partition("/")
    if not (slash and architecture and tag) or path.is_absolute():
        raise UsageError(
            f"{PREFIX}{what} is neither a file nor ARCHITECTURE/WEIGHTS: "
            "write for example clip:ViT-B-16/openai"
        )
    return _with_options(ClipName(architecture, tag), options)


def nearest(word: str, words: Iterable[str]) -> str:
    """`; did you mean X?` or nothing, for the end of a message."""
    close = difflib.get_close_matches(word, list(words), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


_OPTIONS = ("arch", "head", "backbone", "precision", "as_released")


def _read_options(settings: list[str]) -> dict[str, str]:
    options = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if key not in _OPTIONS or not equals:
            raise UsageError(
                f"unknown model option '{setting}': write KEY=VALUE with one of "
                f"{', '.join(_OPTIONS)}{nearest(key, _OPTIONS)}"
            )
        options[key] = value
    return options


def _with_options(name: ClipName, options: dict[str, str]) -> ClipName:
    from ovseg.models.clip.heads import HEADS

    return replace(
        name,
        head=_one_of("head", options, name.head, HEADS),
        backbone=options.get("backbone", name.backbone),
        precision=_one_of("precision", options, name.precision, PRECISIONS),
        as_released=_one_of("as_released", options, "false", ("true", "false")) == "true",
    )


def _one_of(key: str, options: dict[str, str], default: str, allowed: Iterable[str]) -> str:
    value = options.get(key, default)
    if value not in allowed:
        raise UsageError(
            f"unknown {key} '{value}': choose {', '.join(allowed)}{nearest(value, allowed)}"
        )
    return value
