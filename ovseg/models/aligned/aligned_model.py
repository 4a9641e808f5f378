"""An aligned model: two frozen towers and the head between them, and its checkpoint.

Letters: B image or text, N position, D tower width, E text tower width, C embedding width.

A checkpoint holds the head. Towers come by name, from the package, the hub's cache or a folder,
and are compared with the hashes in the recipe. A tower without a name has its weights in the file.
"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from ovseg.config.schema import ModelConfig, Recipe
from ovseg.errors import ModelError
from ovseg.models.aligned.head import AlignedHead
from ovseg.models.aligned.vision import FrozenTower, VisionFeatures, state_digest
from ovseg.models.checkpoint import ALIGNED, write_checkpoint
from ovseg.models.ovsegmentor.text_encoder import EncodedText, TextEncoder
from ovseg.models.tokenizer import TokenizerFiles


class AlignedModel(nn.Module):
    """The towers, which stay as they are, and the head, which is trained.

    Args:
        vision: reads images.
        text: reads texts; put into evaluation mode, without gradients.
        head: what is trained.
    """

    def __init__(self, vision: FrozenTower, text: TextEncoder, head: AlignedHead) -> None:
        super().__init__()
        self.vision = vision
        self.text = text.eval().requires_grad_(False)
        self.head = head

    def train(self, mode: bool = True) -> "AlignedModel":
        """The head's mode; towers stay in evaluation mode."""
        super().train(mode)
        self.text.eval()
        return self

    def features(self, pixels: Tensor, heads: bool = True) -> VisionFeatures:
        """Features of images in ImageNet's normalisation, float [B, 3, H, W]."""
        return self.vision.features(pixels, heads)

    def embed_positions(self, tokens: Tensor) -> Tensor:
        """As `AlignedHead.embed_positions`: [B, N, D] to [B, N, C]."""
        return self.head.embed_positions(tokens)

    def encode_text(self, ids: Tensor, mask: Tensor) -> EncodedText:
        """Encode token ids, int64 [B, L], with their mask [B, L]."""
        encoded: EncodedText = self.text(ids, mask)
        return encoded

    def embed_text_features(self, features: Tensor) -> Tensor:
        """As `AlignedHead.embed_text_features`: [..., E] to [..., C]."""
        return self.head.embed_text_features(features)


def write_aligned(
    path: Path,
    head: Mapping[str, Tensor],
    recipe: Recipe,
    *,
    vision: FrozenTower,
    text: TextEncoder,
    tokenizer: TokenizerFiles | None = None,
    description: str = "",
    licence: str = "",
) -> str:
    """Write a checkpoint, whole or not at all, and return its content hash.

    Args:
        head: the state of an `AlignedHead`.
        recipe: of the run; hashes of the towers are filled in.
        vision, text: the towers; those without a name are written too.
    """
    config = recipe.model
    tensors = {f"head.{name}": tensor for name, tensor in head.items()}
    if not vision_has_name(config):
        tensors |= {f"vision.{name}": tensor for name, tensor in vision.state_dict().items()}
    if not text_has_name(config):
        tensors |= {f"text.{name}": tensor for name, tensor in text.state_dict().items()}
    return write_checkpoint(
        path,
        tensors,
        recipe.model_copy(update={"model": with_digests(config, vision, text)}),
        model_class=ALIGNED,
        tokenizer=tokenizer,
        description=description,
        licence=licence,
    )


def vision_has_name(config: ModelConfig) -> bool:
    """Whether the vision tower's weights can be had by its name."""
    return config.aligned is not None and not config.aligned.vision.has_sizes


def text_has_name(config: ModelConfig) -> bool:
    """Whether the text tower's weights can be had by its name."""
    return bool(config.text.encoder)


def with_digests(config: ModelConfig, vision: FrozenTower, text: TextEncoder) -> ModelConfig:
    """The section with the hashes of its towers' weights.

    Raises:
        ModelError: it is of another kind of model.
    """
    if config.aligned is None:
        raise ModelError("[model.aligned] is missing: this recipe is of another kind of model")
    seen = config.aligned.vision.model_copy(update={"digest": vision.digest})
    read = {"vision": seen, "text_digest": state_digest(text.state_dict())}
    return config.model_copy(update={"aligned": config.aligned.model_copy(update=read)})
