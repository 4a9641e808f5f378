"""A fixture of aligned models: what Talk2DINO's released code computed, and our model of it."""

import json
import re
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor, nn
from torch.nn import functional

from ovseg.config.aligned import AlignedConfig
from ovseg.config.schema import ModelConfig
from ovseg.models.aligned.aligned_model import AlignedModel
from ovseg.models.aligned.aligner import AlignedPredictor
from ovseg.models.aligned.head import AlignedHead
from ovseg.models.aligned.vision import TimmVision
from ovseg.models.interface import ModelCard
from ovseg.models.normalisation import IMAGENET, Normalisation, Renormalisation
from ovseg.models.projection import Projection
from ovseg.models.timm_tower import TimmTower, random_timm
from tests.parity.rows import Row

LABELS = 5  # pixels


@dataclass(frozen=True)
class Read:
    """What a tower makes of one image or a batch of them."""

    cls: Tensor  # [B, D]
    patches: Tensor  # [B, N, D]
    logits: Tensor  # [B, A, N]
    grid: tuple[int, int]


class AlignedFixture:
    """Inputs, weights and results of one file, and the model made of them."""

    def __init__(self, prefix: Path) -> None:
        self.values = load_file(prefix.with_name(f"{prefix.name}.safetensors"))
        text = prefix.with_name(f"{prefix.name}.json").read_text(encoding="utf-8")
        self.facts: dict[str, Any] = json.loads(text)

    @property
    def names(self) -> list[str]:
        """What there is to compare."""
        return sorted(name[4:] for name in self.values if name.startswith("out."))

    @property
    def rotary(self) -> bool:
        """Whether the tower is DINOv3's."""
        return "Eva" in self.facts["model"]["layout"]

    def scale_of(self, name: str) -> float:
        """What attention logits are multiplied by, by the end of a quantity's name."""
        head = self.facts["model"]["width"] // self.facts["model"]["heads"]
        if "_scale_dk" in name:
            return head**-0.5
        return self.facts.get("attention_scale", {}).get("released_constant", 0.125)

    def told(self, pattern: str) -> float:
        """A number that the description of the training names."""
        (found,) = re.findall(pattern, " ".join(map(str, self.facts["train"].values())))
        return float(found)

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under a prefix."""
        return {n.removeprefix(prefix): t for n, t in self.values.items() if n.startswith(prefix)}

    @cached_property
    def backbone(self) -> Any:
        """The timm model with the fixture's weights."""
        sizes = self.facts["model"]
        common = {
            "embed_dim": sizes["width"],
            "depth": sizes["depth"],
            "num_heads": sizes["heads"],
            "patch_size": sizes["patch_size"],
            "norm_layer": partial(nn.LayerNorm, eps=sizes["ln_eps"]),
        }
        state = self.part("weights.vit.")
        if self.rotary:
            model = random_timm(
                "vit_small_patch16_dinov3",
                num_reg_tokens=sizes["registers"],
                qkv_bias=sizes["qkv_bias"],
                rope_temperature=sizes["rope_temperature"],
                mlp_ratio=len(state["blocks.0.mlp.fc1.bias"]) / sizes["width"],
                **common,
            )
        else:
            model = random_timm(
                "vit_small_patch14_dinov2",
                reg_tokens=sizes["registers"],
                no_embed_class=sizes["registers"] > 0,
                img_size=sizes["pos_grid"] * sizes["patch_size"],
                mlp_ratio=sizes["mlp_ratio"],
                init_values=1.0 if sizes["layerscale"] else 0.0,  # timm drops what is None
                **common,
            )
            state = checkpoint_filter_fn(state, model)
        model.load_state_dict(state)
        return model.eval().requires_grad_(False)

    def tower(self, scale: float) -> TimmTower:
        sizes = self.facts["model"]
        if self.rotary:
            return TimmTower(self.backbone, attention_scale=scale)
        rule = "antialiased" if sizes["interpolate_antialias"] else "enlarged"
        offset = sizes["interpolate_offset"]
        return TimmTower(self.backbone, rule, scale, enlargement=offset)

    @torch.no_grad()
    def read(self, pixels: Tensor, name: str = "") -> Read:
        """Normalised pixels [B, 3, H, W] through the tower, scaled as a quantity's name says."""
        tower = self.tower(self.scale_of(name))
        found = tower(pixels, attention=True)
        assert found.attention is not None
        grid = (pixels.shape[-2] // tower.patch, pixels.shape[-1] // tower.patch)
        return Read(found.leading[:, 0], found.patches, found.attention, grid)

    @property
    def normalisation(self) -> Normalisation:
        rule = self.facts.get("preprocess")
        if rule is None:  # DINOv3's fixture names none: it is ImageNet's
            return Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        return Normalisation(tuple(rule["mean"]), tuple(rule["std"]))

    @property
    def side(self) -> int:
        """Of the square that images are resized to."""
        return self.facts.get("preprocess", self.facts["inference"])["resize_dim"]

    def normalised(self, image: Tensor) -> Tensor:
        """A uint8 or float image [H, W, 3] in 0..255 as the tower takes it, [3, H, W]."""
        mean, std = (torch.tensor(each)[:, None, None] for each in self.normalisation)
        return (image.float().permute(2, 0, 1) / 255 - mean) / std

    def squared(self, image: Tensor, antialias: bool = True) -> Tensor:
        """An image resized to a square, whatever its shape, and normalised, [3, S, S]."""
        levels = image.float().permute(2, 0, 1)[None]
        if levels.shape[2:] != (self.side, self.side):
            levels = functional.interpolate(
                levels, (self.side, self.side), mode="bilinear", antialias=antialias
            )
        return self.normalised(levels[0].permute(1, 2, 0))

    def projection(self, prefix: str) -> Projection:
        """The released layers as one of ours."""
        sizes = self.facts["projection"]
        form = "mlp" if sizes["hidden_layer"] else "linear"
        out = sizes["dino_embed_dim"]
        made = Projection(sizes["clip_embed_dim"], out, form, activation=sizes["act"])
        state = self.part(f"weights.{prefix}.")
        first = "hidden" if sizes["hidden_layer"] else "linear"
        made.load_state_dict({_layer(name, first): tensor for name, tensor in state.items()})
        return made

    def predictor(self, clean: float, name: str = "") -> AlignedPredictor:
        """The model as `ovseg segment` runs it, but for its text tower."""
        width = self.facts["model"]["width"]
        reading = {"clean": clean, "scale": 1.0, "align_corners": True}
        aligned = AlignedConfig.model_validate({"reading": reading})
        vision = TimmVision(self.tower(self.scale_of(name)), self.normalisation)
        head = AlignedHead(Projection(width, width, "none"), Projection(width, width, "none"))
        model = AlignedModel(vision, nn.Identity(), head)  # type: ignore[arg-type]
        config = ModelConfig(embedding_width=width, aligned=aligned)
        return AlignedPredictor(model, config, _no_tokenizer, ModelCard("", "aligned", "", "", ""))

    def for_model(self, pixels: Tensor) -> Tensor:
        """Pixels as the tower takes them, as the model does: in ImageNet's normalisation."""
        return Renormalisation(self.normalisation, IMAGENET)(pixels)

    def row(self, name: str, ours: Tensor | np.ndarray, tolerance: float) -> Row | None:
        """Compare one quantity; None where the fixture does not have it."""
        if f"out.{name}" not in self.values:
            return None
        wanted = self.values[f"out.{name}"].double()
        found = torch.as_tensor(ours).detach().double()
        if found.numel() != wanted.numel():
            return Row(name, "float32", float("nan"), tolerance)
        difference = float((found.reshape(wanted.shape) - wanted).abs().max())
        return Row(name, "float32", difference, tolerance)

    def labels(self, name: str, ours: Tensor | np.ndarray, allowed: int = LABELS) -> Row | None:
        """Compare whole numbers; the difference is how many disagree. None as for `row`."""
        if f"out.{name}" not in self.values:
            return None
        wrong = float((torch.as_tensor(ours).int() != self.values[f"out.{name}"].int()).sum())
        return Row(name, "float32", wrong, float(allowed))


def _layer(name: str, first: str) -> str:
    return name.replace("linear_layer", first).replace("hidden_layers.0", "out")


def _no_tokenizer(texts: Any) -> Any:
    raise AssertionError("the class embeddings are given")
