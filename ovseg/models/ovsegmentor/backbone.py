"""Start weights of the image encoder: a ViT of timm, such as DINO's.

Letters: D width, N patch, h w grid rows and columns.
"""

import difflib
import math
from collections.abc import Mapping
from pathlib import Path

import timm
import torch
from torch import Tensor
from torch.nn import functional

from ovseg.errors import ModelError, RecipeError
from ovseg.models.ovsegmentor.image_encoder import ImageEncoder
from ovseg.models.tensor_files import read_tensors

LOCAL_PREFIX = "local-dir:"


def backbone_weights(name: str, pretrained: bool = True) -> dict[str, Tensor]:
    """The state of a timm ViT.

    Args:
        name: timm's name, such as `vit_base_patch16_224.dino`, or `local-dir:FOLDER` for a folder
            with timm's `model.safetensors`.
        pretrained: False gives random weights of the same shapes and needs no network.

    Raises:
        RecipeError: timm knows no such model.
        ModelError: its weights are neither here nor reachable.
    """
    if name.startswith(LOCAL_PREFIX):
        return _local_weights(Path(name.removeprefix(LOCAL_PREFIX)))
    try:
        vit = timm.create_model(name, pretrained=pretrained, num_classes=0)
    except (OSError, ValueError, AssertionError) as error:
        raise ModelError(
            f"start weights {name!r} cannot be loaded ({_first_line(error)}). Without a network, "
            f"put model.safetensors of timm/{name} from the hub into a folder and "
            'set model.image.backbone to "local-dir:FOLDER"'
        ) from error
    except RuntimeError as error:
        near = difflib.get_close_matches(name.split(".")[0], timm.list_models("*vit*"))
        similar = ", ".join(near) or "none similar"
        raise RecipeError(
            f"model.image.backbone {name!r} is no model of timm ({_first_line(error)}); "
            f"timm has: {similar}"
        ) from error
    state: dict[str, Tensor] = vit.state_dict()
    return state


def _local_weights(folder: Path) -> dict[str, Tensor]:
    """A folder's safetensors. timm's own reader of folders would fall back to pickles."""
    try:
        return read_tensors(folder / "model.safetensors")
    except ModelError as error:
        raise ModelError(
            f"start weights: {error}; put model.safetensors of the timm model from the hub into "
            f"{folder}"
        ) from error


def load_backbone(encoder: ImageEncoder, weights: Mapping[str, Tensor]) -> None:
    """Start an encoder from a ViT: patch embedding, positions, blocks and final norm.

    The CLS token and its position are dropped, since the encoder has none. Positions of another
    image size are resized. The number of heads is the encoder's own and changes no shape.

    Raises:
        ModelError: the ViT has other widths, patches or fewer blocks than the encoder.
    """
    wanted = encoder.state_dict()
    renamed = {_our_name(key, len(encoder.stage1)): value for key, value in weights.items()}
    start = {key: value for key, value in renamed.items() if key in wanted}
    start["position"] = _patch_positions(weights, encoder.stored_grid)
    parts = ("patch_embed.", "position", "stage1.", "stage2.", "norm.")
    absent = [key for key in wanted if key.startswith(parts) and key not in start]
    other = [key for key, value in start.items() if value.shape != wanted[key].shape]
    if absent or other:
        raise ModelError(
            "start weights do not fit the image encoder: "
            + "; ".join(_complaint(what, keys) for what, keys in _named(absent, other) if keys)
            + "; set width, depths and patch of model.image to the backbone's"
        )
    encoder.load_state_dict(start, strict=False)


def _named(absent: list[str], other: list[str]) -> list[tuple[str, list[str]]]:
    return [("missing", absent), ("other shape", other)]


def _complaint(what: str, keys: list[str]) -> str:
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return f"{what} {', '.join(keys[:3])}{more}"


def _our_name(key: str, first_stage: int) -> str:
    """timm counts blocks through; we count them per stage."""
    head, _, rest = key.partition(".")
    if head != "blocks":
        return key
    number, _, rest = rest.partition(".")
    index = int(number)
    if index < first_stage:
        return f"stage1.{index}.{rest}"
    return f"stage2.{index - first_stage}.{rest}"


def _patch_positions(weights: Mapping[str, Tensor], grid: tuple[int, int]) -> Tensor:
    """Positions of the patches at our grid, float [h*w, D]."""
    position = weights.get("pos_embed")
    if position is None:
        raise ModelError("start weights have no pos_embed: only plain ViTs can start the encoder")
    prefix = 1 if "cls_token" in weights else 0
    # Some of timm's ViTs have a CLS token without a position of its own.
    prefix = prefix if math.isqrt(position.shape[1]) ** 2 != position.shape[1] else 0
    position = position[0, prefix:]  # [N, D]
    side = math.isqrt(len(position))
    if (side, side) == grid:
        return position
    square = position.T.reshape(1, -1, side, side).float()
    resized = functional.interpolate(square, size=grid, mode="bicubic", align_corners=False)
    return resized[0].flatten(1).T.contiguous().to(torch.float32)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
