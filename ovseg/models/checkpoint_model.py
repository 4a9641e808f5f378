"""From a checkpoint file to a model that segments."""

from pathlib import Path

from ovseg.errors import ModelError
from ovseg.models.build import build_ovsegmentor
from ovseg.models.checkpoint import CheckpointInfo, load_state, read_info, read_tensors
from ovseg.models.interface import ModelCard
from ovseg.models.predictor import Predictor
from ovseg.models.text_encoder import CLIP_PREFIX
from ovseg.models.tokenizer import HubTokenizer, Tokenizer, load_tokenizer
from ovseg.models.tokenizer_files import restore_tokenizer

RELEASED_SUFFIXES = frozenset({".pth", ".pt"})


def read_model(path: Path) -> Predictor:
    """Build the model that a checkpoint describes and load its weights.

    Raises:
        ModelError: no checkpoint of ovseg, damaged, or without a tokenizer in it or elsewhere.
    """
    if path.suffix in RELEASED_SUFFIXES:
        raise ModelError(
            f"{path}: a released checkpoint is converted before it is used: "
            f"ovseg models convert {path} {path.with_suffix('.safetensors')}"
        )
    info = read_info(path)
    if info.model_class != "OVSegmentor":
        raise ModelError(
            f"{path}: holds a {info.model_class or 'model without a name'}, which cannot segment"
        )
    model = build_ovsegmentor(info.recipe.model, contrastive=info.recipe.loss.contrastive)
    load_state(model, read_tensors(path), str(path))
    card = ModelCard(
        name=str(path),
        kind="ovsegmentor",
        description=info.description or "OVSegmentor, learned from images and captions",
        licence=info.licence,
        content_hash=info.content_hash,
    )
    return Predictor(model, _tokenizer(path, info), card)


def _tokenizer(path: Path, info: CheckpointInfo) -> Tokenizer:
    """The file's own, else the one it names."""
    text = info.recipe.model.text
    if info.tokenizer is not None:
        return HubTokenizer(restore_tokenizer(info.tokenizer), text.max_tokens)
    clip = text.encoder if text.encoder.startswith(CLIP_PREFIX) else ""
    name = text.tokenizer or clip or text.encoder
    if not name:
        raise ModelError(
            f"{path}: it neither brings nor names a tokenizer, so it cannot read class names; "
            "convert it again with --set model.text.tokenizer=NAME"
        )
    return load_tokenizer(name, text.revision, text.max_tokens)
