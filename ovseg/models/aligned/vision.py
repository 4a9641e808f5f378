"""Frozen vision towers: images in, features of positions out.

Letters: B image, N position, A attention head, D width, H W pixels, h w grid rows and columns.

Both towers take pixels in ImageNet's normalisation, whatever their own is.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import as_file, files

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from ovseg.errors import ModelError
from ovseg.models.normalisation import IMAGENET, PLUS_MINUS_ONE, Normalisation, Renormalisation
from ovseg.models.starter.network import HEAD_WIDTH, LITE2, EfficientNetLite
from ovseg.models.timm_tower import TimmTower, head_vectors

LAST = len(LITE2) + 1
"""The number of the built-in network's head, as if it was a stage."""


@dataclass(frozen=True)
class VisionFeatures:
    """What a tower finds in images.

    Attributes:
        tokens: features of the positions, row by row, float [B, N, D].
        grid: their rows and columns (h, w), N = h*w.
        heads: the mean of the tokens by the attention of each head, float [B, A, D]; None where the
            tower has no heads or they were not asked for.
        attention: what the means are weighted by, before its softmax, float [B, A, N], or None.
    """

    tokens: Tensor
    grid: tuple[int, int]
    heads: Tensor | None = None
    attention: Tensor | None = None


class FrozenTower(nn.Module):
    """Base of towers that stay as they are: no gradients, and always in evaluation mode.

    Attributes:
        width: D.
        heads: A; 0 for towers without heads.
        patch: pixels from one position to the next.
        multiple_of: what both sides of an image must be multiples of.
    """

    width: int
    heads: int
    patch: int
    multiple_of: int

    def features(self, pixels: Tensor, heads: bool = True) -> VisionFeatures:
        """Read images in ImageNet's normalisation, float [B, 3, H, W].

        Args:
            heads: whether those of the attention heads are wanted, where the tower has them.

        Raises:
            ModelError: a side is no multiple of `multiple_of`.
        """
        raise NotImplementedError

    def forward(self, pixels: Tensor) -> VisionFeatures:
        """As `features`."""
        return self.features(pixels)

    def train(self, mode: bool = True) -> "FrozenTower":
        """Evaluation mode, whatever is asked for."""
        del mode
        return super().train(False)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the weights by name, for what is computed with them and kept."""
        return state_digest(self.state_dict())

    def _grid(self, pixels: Tensor) -> tuple[int, int]:
        height, width = pixels.shape[-2:]
        if height % self.multiple_of or width % self.multiple_of:
            raise ModelError(
                f"image of {height}x{width} pixels: both sides must be multiples of "
                f"{self.multiple_of}; resize it first"
            )
        return height // self.patch, width // self.patch


class TimmVision(FrozenTower):
    """A vision transformer of timm.

    Args:
        tower: the transformer.
        normalisation: that of its pixels.
    """

    def __init__(self, tower: TimmTower, normalisation: Normalisation = IMAGENET) -> None:
        super().__init__()
        self.tower = tower
        self.width, self.heads = tower.width, tower.heads
        self.patch = self.multiple_of = tower.patch
        self.renormalise = Renormalisation(IMAGENET, normalisation)
        self.requires_grad_(False).eval()

    def features(self, pixels: Tensor, heads: bool = True) -> VisionFeatures:
        grid = self._grid(pixels)
        found = self.tower(self.renormalise(pixels), attention=heads and self.heads > 0)
        if found.attention is None:
            return VisionFeatures(found.patches, grid)
        vectors = head_vectors(found.patches, found.attention)
        return VisionFeatures(found.patches, grid, vectors, found.attention)


class StarterVision(FrozenTower):
    """Stages of the built-in network, EfficientNet-Lite2.

    Args:
        stages: those whose outputs are joined, 1 to 7, or 8 for what its classifier reads.
        stride: pixels from one position to the next: 8, 16 or 32.

    Raises:
        ModelError: a stage has a coarser grid, of a stride that it was not asked for.
    """

    heads = 0
    multiple_of = 32

    def __init__(self, stages: tuple[int, ...], stride: int) -> None:
        super().__init__()
        self.stages = stages
        self.patch = stride
        self.width = sum(
            HEAD_WIDTH if stage == LAST else LITE2[stage - 1].width for stage in stages
        )
        needed = LITE2[: min(max(stages), len(LITE2))]
        self.network = EfficientNetLite(needed, stride=stride)
        del self.network.classifier
        if LAST not in stages:
            del self.network.head
        self.renormalise = Renormalisation(IMAGENET, PLUS_MINUS_ONE)
        self.requires_grad_(False).eval()
        self.network.to(memory_format=torch.channels_last)

    def features(self, pixels: Tensor, heads: bool = True) -> VisionFeatures:
        del heads
        grid = self._grid(pixels)
        pixels = self.renormalise(pixels).contiguous(memory_format=torch.channels_last)
        outputs = self.network.stage_outputs(pixels)
        if LAST in self.stages:
            outputs.append(functional.relu6(self.network.head(outputs[-1])))
        maps = [self._on_grid(stage, outputs[stage - 1]) for stage in self.stages]
        return VisionFeatures(torch.cat(maps, dim=1).flatten(2).transpose(1, 2), grid)

    def _on_grid(self, stage: int, maps: Tensor) -> Tensor:
        """A stage's output [B, D, h', w'] as means over the positions, [B, D, h, w]."""
        finer = self.patch // min(self.patch, _stride_of(stage))
        return maps if finer == 1 else functional.avg_pool2d(maps, finer)

    def load_own_weights(self) -> None:
        """Fill the network with the weights that the package carries."""
        with as_file(files("ovseg.models.starter") / "weights.safetensors") as path:
            state = load_file(path)
        wanted = self.network.state_dict()
        self.network.load_state_dict({name: state[name].float() for name in wanted})


def state_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over tensors and their names, wherever they lie."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
        digest.update(flat.numpy().tobytes())
    return digest.hexdigest()


def _stride_of(stage: int) -> int:
    """Pixels from one position to the next of a stage, as it was trained."""
    stride = 2
    for each in LITE2[:stage]:
        stride *= each.stride
    return stride
