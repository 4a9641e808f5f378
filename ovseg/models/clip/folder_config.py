"""`open_clip_config.json` of a folder that anyone may have made, checked before open_clip sees it.

open_clip builds whatever it says: towers of any size, timm models from other hosts, and a tokenizer
with any argument of transformers' loader, among them the one that runs code.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ovseg.documents import Bounds, read_object
from ovseg.errors import ModelError

FOLDER_CONFIG = "open_clip_config.json"

_BOUNDS = Bounds(size=1 << 20, depth=16, digits=12)
_TOKENIZER_KEYS = {"clean", "strip_sep_token", "language", "context_length", "reduction_mask"}
_MOST = {"layers": 256, "width": 65_536, "context_length": 8_192, "image_size": 8_192}
_MOST_OF_OTHERS = 4_000_000  # entries of a vocabulary


def read_folder_config(folder: Path) -> dict[str, Any]:
    """What a folder says of its model.

    Raises:
        ModelError: it is missing, damaged, or asks for what no model needs.
    """
    path = folder / FOLDER_CONFIG
    described = read_object(path, _BOUNDS, ModelError)
    config, pixels = described.get("model_cfg"), described.get("preprocess_cfg", {})
    if not isinstance(config, dict):
        raise ModelError(f"{path}: there is no model_cfg in it")
    towers = [config.get(name, {}) for name in ("vision_cfg", "text_cfg")]
    if not all(isinstance(part, dict) for part in (*towers, pixels)):
        raise ModelError(f"{path}: its sections are not what open_clip writes")
    _check_tokenizer(towers[1].get("tokenizer_kwargs") or {}, path)
    _check_names(towers, path)
    for key, value in _numbers(config):
        if not -1 <= value <= _MOST.get(key, _MOST_OF_OTHERS):
            raise ModelError(f"{path}: refused: {key} = {value} is beyond any model")
    return described


def _check_tokenizer(options: Any, path: Path) -> None:
    if not isinstance(options, dict) or set(options) - _TOKENIZER_KEYS:
        raise ModelError(
            f"{path}: refused: tokenizer_kwargs may have {', '.join(sorted(_TOKENIZER_KEYS))} "
            "alone; others can load and run anything"
        )


def _check_names(towers: list[dict[str, Any]], path: Path) -> None:
    """timm and transformers take addresses for names; open_clip's own weights are not wanted."""
    for tower in towers:
        for key in ("timm_model_name", "hf_model_name"):
            name = tower.get(key) or ""
            if not isinstance(name, str) or ":" in name:
                raise ModelError(f"{path}: refused: {key} is {str(name)[:80]!r}, no plain name")
        if tower.get("timm_model_pretrained"):
            raise ModelError(f"{path}: refused: timm_model_pretrained asks for other weights")


def _numbers(value: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """Every number in a configuration with the key it stands under."""
    if isinstance(value, dict):
        for inner_key, inner in value.items():
            yield from _numbers(inner, inner_key)
    elif isinstance(value, list):
        for inner in value:
            yield from _numbers(inner, key)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield key, value
