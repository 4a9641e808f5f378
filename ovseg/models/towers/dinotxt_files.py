"""dino.txt from its authors' files: which tensors are what, and how large the towers are."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ovseg.errors import ModelError
from ovseg.files import file_digest
from ovseg.models.checkpoint import check_finite
from ovseg.models.interface import ModelCard, Preprocessing
from ovseg.models.normalisation import IMAGENET
from ovseg.models.templates import imagenet_templates
from ovseg.models.timm_tower import load_timm
from ovseg.models.torch_file import read_torch_file
from ovseg.models.towers.caption_tower import CaptionTower, Towers
from ovseg.models.towers.dinotxt import DinoTxtText, DinoTxtVision, PatchText, VisionHead

WIDTH_OF_A_HEAD = 64
_HEAD, _TEXT = "visual_model.head.", "text_model."
_BY_NAME = {"vision_head": _HEAD, "text_encoder": _TEXT}


def read_dinotxt(backbone: str, parts: Sequence[Path], name: str) -> CaptionTower:
    """A model from its files.

    Args:
        backbone: timm's name of the backbone, or NAME@FILE.
        parts: the vision head and the text tower, in one file or two.
        name: for the card.

    Raises:
        ModelError: files do not hold what they should.
    """
    where = parts[0].parent
    state: dict[str, Tensor] = {}
    for part in parts:
        state |= _named(part)
    check_finite(state, str(where))
    vision = DinoTxtVision(load_timm(backbone, option="backbone "), _head_of(state, where))
    text = _text_of(state, where)
    from open_clip import get_tokenizer

    digests = " ".join(file_digest(part) for part in parts)
    card = ModelCard(
        name=name,
        kind="dinotxt",
        description="dino.txt: a DINO whose patches were aligned with captions, read behind its "
        "head",
        licence="DINOv3 licence" if "dinov3" in backbone else "Apache-2.0",
        content_hash=hashlib.sha256(f"{digests} {backbone}".encode()).hexdigest(),
    )
    tokenizer = get_tokenizer("ViT-B-16")
    return dinotxt_model(vision, PatchText(text, tokenizer), card, imagenet_templates())


def dinotxt_model(
    vision: DinoTxtVision, text: PatchText, card: ModelCard, templates: tuple[str, ...]
) -> CaptionTower:
    """From both towers. Size and windows are those of DINOv3's notebook, for DINOv2 as well."""
    red, green, blue = (255 * value for value in IMAGENET.mean)
    r, g, b = (255 * value for value in IMAGENET.std)
    pixels = Preprocessing(
        mean=(red, green, blue),
        std=(r, g, b),
        short_side=512,
        window=384,
        stride=192,
        resample="bicubic",
    )
    return CaptionTower(Towers(vision, text, vision.backbone.patch, pixels, templates, card))


def head_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The vision head's tensors under our names: `blocks` of DINOv3 are `block_list` of DINOv2."""
    found = {key[len(_HEAD) :]: value for key, value in state.items() if key.startswith(_HEAD)}
    return {
        f"block_list.{key[len('blocks.') :]}" if key.startswith("blocks.") else key: value
        for key, value in found.items()
    }


def text_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The text tower's tensors."""
    return {key[len(_TEXT) :]: value for key, value in state.items() if key.startswith(_TEXT)}


def build_head(state: Mapping[str, Tensor], heads: int, eps: float = 1e-5) -> VisionHead:
    """A vision head as large as its tensors say, with them."""
    blocks = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("block_list."))
    projection = state.get("linear_projection.weight")
    projected = 0 if projection is None else len(projection)
    head = VisionHead(len(state["ln_final.weight"]), heads, blocks, projected, eps)
    head.load_state_dict(dict(state))
    return head


def build_text(state: Mapping[str, Tensor], heads: int, eps: float = 1e-5) -> DinoTxtText:
    """A text tower as large as its tensors say, with them."""
    vocabulary, width = state["backbone.token_embedding.weight"].shape
    layers = {key.split(".")[2] for key in state if key.startswith("backbone.blocks.")}
    text = DinoTxtText(
        width,
        heads,
        len(layers),
        len(state["backbone.positional_embedding"]),
        vocabulary,
        len(state["head.linear_projection.weight"]),
        eps,
    )
    text.load_state_dict(dict(state))
    return text


def _named(part: Path) -> dict[str, Tensor]:
    """Tensors of a file under the names of the whole model."""
    file = read_torch_file(part)
    tensors = file.tensors(file.content)
    prefix = next((each for end, each in _BY_NAME.items() if part.stem.endswith(end)), "")
    return {prefix + key: value for key, value in tensors.items()}


def _head_of(state: Mapping[str, Tensor], where: Path) -> VisionHead:
    found = head_state(state)
    return _built(build_head, found, "ln_final.weight", where)


def _text_of(state: Mapping[str, Tensor], where: Path) -> DinoTxtText:
    return _built(build_text, text_state(state), "backbone.ln_final.weight", where)


def _built(build: Any, state: dict[str, Tensor], width_of: str, where: Path) -> Any:
    """A part with heads of 64 channels, as all released ones have."""
    try:
        return build(state, max(len(state[width_of]) // WIDTH_OF_A_HEAD, 1))
    except (KeyError, ValueError, RuntimeError, IndexError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{where}: no files of dino.txt: {first}") from error
