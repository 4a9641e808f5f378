"""Compare caption-trained towers with what the released TIPSv2 and dino.txt computed.

    python tests/parity/check_towers.py tests/parity/data/tips-a

The argument is a prefix: PREFIX.json says which model it is and every size and constant,
PREFIX.safetensors holds weights (`weights.*`), inputs (`in.*`) and what came of them (`out.*`). One
row is printed per quantity: its name, the largest absolute difference, the tolerance, and whether
it passes. The exit code is 1 if a row does not. With --json they are printed as JSON.

Tokens may differ by 3e-5, vectors of text and cosines by 1e-5, probabilities by 2e-6. Label maps
may differ in five pixels, those that rounding decides.
"""

import json
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))  # the clone, of which `tests` is a package

from ovseg.data.class_list import ClassList
from ovseg.inference.encode import encode_views
from ovseg.inference.labeller import Labeller
from ovseg.inference.protocol import Protocol, own
from ovseg.inference.views import View, views_of
from ovseg.inference.window_probabilities import WindowProbabilities
from ovseg.models.interface import ModelCard, Preprocessing
from ovseg.models.towers.caption_tower import CaptionTower, Towers, mean_of_prompts, stretched
from ovseg.models.towers.dinotxt import DinoTxtVision, patch_half
from ovseg.models.towers.dinotxt_files import build_head, build_text, head_state, text_state
from ovseg.models.towers.tips import TipsText, TipsVision
from tests.parity.rows import Row, run_check
from tests.parity.tower_keys import text_keys, timm_keys, vision_keys

TOKENS, VECTORS, PROBABILITIES, LABELS = 3e-5, 1e-5, 2e-6, 5
PRECISION = "float32"
Made = Callable[[], Tensor]


@dataclass(frozen=True)
class Fixture:
    """A fixture, with its model's sizes and parameters."""

    facts: dict[str, Any]
    values: dict[str, Tensor]

    @classmethod
    def read(cls, prefix: Path) -> "Fixture":
        facts = json.loads(prefix.with_name(f"{prefix.name}.json").read_text(encoding="utf-8"))
        return cls(facts, load_file(prefix.with_name(f"{prefix.name}.safetensors")))

    @property
    def outputs(self) -> list[str]:
        return [name.removeprefix("out.") for name in self.values if name.startswith("out.")]

    def weights(self, prefix: str) -> dict[str, Tensor]:
        start = f"weights.{prefix}"
        return {k[len(start) :]: v for k, v in self.values.items() if k.startswith(start)}

    @cached_property
    def preprocessing(self) -> Preprocessing:
        p = self.facts["parameters"]
        mean, std = ([255 * value for value in p[key]] for key in ("mean", "std"))
        return Preprocessing(
            mean=(mean[0], mean[1], mean[2]),
            std=(std[0], std[1], std[2]),
            short_side=p["short_side"],
            window=p["side"],
            stride=p["stride"],
            resample="bicubic",
        )

    def row(self, covers: str, ours: Tensor) -> Row:
        reference = self.values[f"out.{covers}"]
        if reference.numel() != ours.numel():
            return Row(covers, PRECISION, float("nan"), 0.0)
        ours = ours.reshape(reference.shape)
        if reference.dtype == torch.uint8:
            return Row(covers, PRECISION, float((ours != reference).sum()), LABELS)
        difference = float((ours.double() - reference.double()).abs().max())
        return Row(covers, PRECISION, difference, _tolerance(covers))


def _tolerance(name: str) -> float:
    if "probs" in name:
        return PROBABILITIES
    vectors = ("text", "cosine", "similarity", "logits", "preprocessed")
    return VECTORS if any(word in name for word in vectors) else TOKENS


class Check(ABC):
    """What both models have: an image through windows and whole, and words given as vectors."""

    def __init__(self, fixture: Fixture) -> None:
        self.f = fixture

    @abstractmethod
    def vision(self) -> nn.Module:
        """From whole patches to the patches that are compared."""

    @abstractmethod
    def more(self) -> dict[str, Made]:
        """What only this model has."""

    @property
    def patch(self) -> int:
        return int(self.f.facts["model"]["patch_size"])

    @cached_property
    def model(self) -> CaptionTower:
        card = ModelCard("parity", "parity", "", "", "")
        towers = Towers(self.vision(), _given, self.patch, self.f.preprocessing, ("{}",), card)  # type: ignore[arg-type]
        return CaptionTower(towers)

    def protocol(self, **changes: Any) -> Protocol:
        options = {"rule": "probability", "scale": 1.0, "average": "probabilities"}
        chosen = own(background=False, **options, **changes)
        return chosen.for_model(_Plain(self.model), background=False)  # type: ignore[arg-type]

    @cached_property
    def image(self) -> np.ndarray:
        return self.f.values["in.image"].numpy()

    @cached_property
    def words(self) -> Tensor:
        return self.f.values["in.text_segmentation"]

    def view(self, **changes: Any) -> View:
        return views_of(self.image, self.protocol(**changes), self.f.preprocessing)[0]

    @cached_property
    def pixels(self) -> Tensor:
        return torch.from_numpy(self.view(window="none").pixels)

    @cached_property
    def window(self) -> Tensor:
        """The first one, [1, 3, side, side]."""
        side = self.f.facts["parameters"]["side"]
        return stretched(self.pixels[None, :, :side, :side], self.patch)

    def labels(self, **changes: Any) -> Tensor:
        """Through the code that `ovseg segment` runs."""
        classes = ClassList.of([f"class {number}" for number in range(len(self.words))])
        protocol = self.protocol(**changes)
        plain: Any = _Plain(self.model)
        labeller = Labeller(plain, protocol, classes, _Given(self.words))  # type: ignore[arg-type]
        views = encode_views(plain, labeller.views(self.image))
        (found,) = labeller.labels_at(views, self.image.shape[:2], [None])
        return found - 1

    def probabilities(self) -> Tensor:
        """Mean over the windows at the size of the network's image, [K, H', W']."""
        view = self.view()
        (encoded,) = encode_views(self.model, [view])
        cosines = encoded.grouped.embedding @ normalize(self.words, dim=-1).T
        return WindowProbabilities.of(cosines, encoded, view.shape, 1.0).piece(slice(None))

    def cosine(self) -> Tensor:
        """Of the whole image, [K, h, w]."""
        grouped = self.model.encode_image(self.pixels[None])
        cosines = grouped.embedding[0] @ normalize(self.words, dim=-1).T
        return cosines.T.reshape(-1, *grouped.grid)

    def maps(self, tag: str) -> dict[str, Made]:
        return {
            f"{tag}.slide_probs": self.probabilities,
            f"{tag}.slide_labels": self.labels,
            f"{tag}.whole_cosine": self.cosine,
            f"{tag}.whole_labels": partial(self.labels, window="none"),
            "preprocessed": lambda: self.pixels,
        }

    def rows(self) -> Iterator[Row]:
        made = self.more()
        for name in self.f.outputs:
            found = re.fullmatch(r"(.+?)(?:_sub(\d+))?", name)
            assert found
            compute, step = made.get(found[1]), int(found[2] or 1)
            if compute is None:
                yield Row(name, PRECISION, float("nan"), 0.0)
                continue
            ours = compute()
            yield self.f.row(name, ours[..., ::step, ::step] if step > 1 else ours)


class _Plain:
    """The model without its own way of reading, so that the protocol alone says how."""

    def __init__(self, model: CaptionTower) -> None:
        self.threshold, self.templates = 0.0, ("{}",)
        self.preprocessing, self.card = model.preprocessing, model.card
        self.encode_image, self.from_numpy = model.encode_image, model.from_numpy


class _Given:
    """The words' vectors, as a cache of embeddings has them."""

    def __init__(self, vectors: Tensor) -> None:
        self.vectors = vectors

    def get(self, phrases: Any, templates: Any) -> np.ndarray:
        return self.vectors.numpy()


def _given(prompts: Any) -> Tensor:
    raise AssertionError("the vectors of the words are given")


class TipsCheck(Check):
    """TIPSv2 in transformers' modules."""

    @cached_property
    def transformers(self) -> Any:
        from transformers import Tipsv2Config, Tipsv2Model

        m, text = self.f.facts["model"], self.f.facts["model"]["text"]
        config = Tipsv2Config(
            vision_config={
                "hidden_size": m["width"],
                "num_hidden_layers": m["depth"],
                "num_attention_heads": m["heads"],
                "mlp_ratio": m["mlp_ratio"],
                "layer_norm_eps": m["ln_eps"],
                "image_size": m["pos_grid"] * m["patch_size"],
                "patch_size": m["patch_size"],
                "num_register_tokens": m["registers"],
                "use_swiglu_ffn": m["ffn"] != "mlp",
            },
            text_config={
                "vocab_size": text["vocab"],
                "hidden_size": text["width"],
                "intermediate_size": text["mlp"],
                "num_hidden_layers": text["layers"],
                "num_attention_heads": text["heads"],
                "layer_norm_eps": text["ln_eps"],
                "hidden_act": text["activation"],
            },
        )
        model = Tipsv2Model(config).eval()
        model.vision_model.load_state_dict(vision_keys(self.f.weights("vision.")))
        model.text_model.load_state_dict(text_keys(self.f.weights("text.")))
        return model.requires_grad_(False)

    def vision(self) -> nn.Module:
        return TipsVision(self.transformers.vision_model)

    def more(self) -> dict[str, Made]:
        return {
            **self.maps("values"),
            "whole.patches_values": lambda: self._patches(stretched(self.pixels[None], self.patch)),
            "window0.patches_values": lambda: self._patches(self.window),
            "window0.patches_plain": lambda: self._plain[2:],
            "window0.cls1": lambda: self._plain[0],
            "window0.cls2": lambda: self._plain[1],
            "text_features": self._text,
            "text": lambda: mean_of_prompts(self._text()),
        }

    def _patches(self, pixels: Tensor) -> Tensor:
        return self.model.towers.vision(pixels)[0]

    @cached_property
    def _plain(self) -> Tensor:
        return self.transformers.vision_model(self.window).last_hidden_state[0]

    def _text(self) -> Tensor:
        ids, padding = self.f.values["in.tokens"], self.f.values["in.paddings"]
        text = TipsText(self.transformers.text_model, None)
        flat = text.of_tokens(ids.flatten(0, 1), 1 - padding.flatten(0, 1))
        return flat.reshape(*ids.shape[:2], -1)


class DinoTxtCheck(Check):
    """dino.txt on a DINOv2 in timm's modules."""

    @cached_property
    def dino(self) -> DinoTxtVision:
        m = self.f.facts["model"]
        backbone = VisionTransformer(
            img_size=m["pos_grid"] * m["patch_size"],
            patch_size=m["patch_size"],
            embed_dim=m["width"],
            depth=m["depth"],
            num_heads=m["heads"],
            mlp_ratio=m["backbone_mlp_ratio"],
            num_classes=0,
            init_values=1.0,
            reg_tokens=m["registers"],
            no_embed_class=True,
            dynamic_img_size=True,
            norm_layer=partial(nn.LayerNorm, eps=m["backbone_ln_eps"]),
        )
        backbone.load_state_dict(timm_keys(self.f.weights("visual_model.backbone.model.")))
        head = build_head(head_state(self.f.weights("")), m["heads"], m["head_ln_eps"])
        return DinoTxtVision(backbone, head).eval().requires_grad_(False)

    def vision(self) -> nn.Module:
        return self.dino

    def more(self) -> dict[str, Made]:
        registers = self.f.facts["model"]["registers"]
        return {
            **self.maps("after_head"),
            **_BackboneCheck(self).maps("as_released_backbone"),
            "window0.backbone_class": lambda: self._seen[0][0],
            "window0.backbone_registers": lambda: self._seen[0][1 : 1 + registers],
            "window0.backbone_patches": lambda: self._seen[1],
            "window0.head_class": lambda: self._behind[0],
            "window0.head_patches": lambda: self._behind[1 + registers :],
            "window0.image_features": lambda: self.dino.image_vectors(self._behind[None])[0],
            "window0.logits_4texts": self._logits,
            "window0.dinov2_notebook_similarity": self._notebook,
            "window0.dinov2_notebook_labels": lambda: self._notebook().argmax(dim=0),
            "text_features": self._text,
            "text_patch_half": lambda: mean_of_prompts(patch_half(self._text())),
        }

    @cached_property
    def _seen(self) -> tuple[Tensor, Tensor]:
        seen = self.dino.backbone(self.window)
        return seen.leading[0], seen.patches[0]

    @cached_property
    def _behind(self) -> Tensor:
        return self.dino.tokens(self.window)[0]

    def _text(self) -> Tensor:
        text = self.f.facts["model"]["text"]
        tower = build_text(text_state(self.f.weights("")), text["heads"], text["ln_eps"])
        ids = self.f.values["in.tokens"]
        return tower.eval()(ids.flatten(0, 1)).reshape(*ids.shape[:2], -1).detach()

    def _logits(self) -> Tensor:
        """The image and the first four texts."""
        image = normalize(self.dino.image_vectors(self._behind[None]), dim=-1)
        texts = normalize(self._text().flatten(0, 1)[:4], dim=-1)
        return self.f.values["weights.logit_scale"].exp() * (image @ texts.T)[0]

    def _notebook(self) -> Tensor:
        """DINOv2's: patches resized to the picture's size, then their cosines, [K, H, W]."""
        labels = self.f.values["out.window0.dinov2_notebook_labels"]
        side = self.f.facts["parameters"]["side"] // self.patch
        patches = self._behind[self.dino.backbone.prefix :].T.reshape(1, -1, side, side)
        resized = interpolate(patches, tuple(labels.shape), mode="bicubic", align_corners=False)
        return torch.einsum(
            "kc,chw->khw", normalize(self.words, dim=-1), normalize(resized[0], dim=0)
        )


class _BackboneCheck(Check):
    """What DINOv3's notebook computes: cosines with the patches before the head."""

    def __init__(self, check: DinoTxtCheck) -> None:
        super().__init__(check.f)
        self.check = check

    def vision(self) -> nn.Module:
        return _Patches(self.check.dino.backbone)

    def more(self) -> dict[str, Made]:
        return {}

    @cached_property
    def words(self) -> Tensor:
        stored = self.f.values.get("in.text_segmentation_backbone")
        return super().words if stored is None else stored


class _Patches(nn.Module):
    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, pixels: Tensor) -> Tensor:
        return self.tower(pixels).patches


@torch.inference_mode()
def compare(prefix: Path) -> Iterator[Row]:
    """Every quantity of the fixture."""
    fixture = Fixture.read(prefix)
    tips = "vision.blocks" in " ".join(fixture.values)
    yield from (TipsCheck if tips else DinoTxtCheck)(fixture).rows()


def main(arguments: list[str]) -> int:
    """Print the rows of one fixture; 0 if all pass, 1 if one does not, 2 if called wrongly."""
    return run_check(arguments, __doc__, compare)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
