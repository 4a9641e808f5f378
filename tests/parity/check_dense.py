"""Compare the dense CLIP methods with a fixture of the released implementations' results.

    python tests/parity/check_dense.py tests/parity/data/dense-a

reads PREFIX.safetensors and PREFIX.json, which says every size and constant, computes every `out.*`
again with ovseg's own code, and prints a row each: largest difference as a share of the fixture's
maximum, and what is allowed.
Label maps may differ in as many pixels as the fixture's notes say, those that rounding decides. The
exit code is 0 if all rows pass.
"""

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from open_clip.transformer import LayerNorm, QuickGELU, VisionTransformer
from safetensors.torch import load_file
from torch import Tensor, nn

from ovseg.data.images import resize
from ovseg.inference.derived_maps import RefinedMaps
from ovseg.inference.encode import EncodedView, encode_views
from ovseg.inference.labels import PixelRule, label_pixels, small_classes
from ovseg.inference.maps import PositionMaps, ScoreMaps
from ovseg.inference.protocol import Protocol, own
from ovseg.inference.refine.pamr import Pamr
from ovseg.inference.resize import resize_bilinear
from ovseg.inference.views import lay_windows
from ovseg.models.clip.guide import GuideNetwork
from ovseg.models.clip.heads import HEADS, Guide, Head, LastBlock, neighbourhood
from ovseg.models.clip.tower import OpenClipTower
from ovseg.models.interface import GroupedImage
from ovseg.models.normalisation import Normalisation
from ovseg.models.positions import ENLARGEMENT, resize_positions

TOLERANCE = 1e-5
LOOSER = 1e-4  # after PAMR
LOOSEST = 3e-4  # after renormalisation
CLIP = Normalisation((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


@dataclass(frozen=True)
class Row:
    """One result: `error` is a share of the maximum, or for label maps a number of pixels."""

    name: str
    error: float
    allowed: float
    unit: str = ""

    @property
    def passes(self) -> bool:
        return self.error <= self.allowed


class Fixture:
    """Inputs, weights and results of one file, and the models made of them."""

    def __init__(self, prefix: Path) -> None:
        self.tensors = load_file(prefix.with_name(prefix.name + ".safetensors"))
        self.facts = json.loads(prefix.with_name(prefix.name + ".json").read_text())
        self.names = [name[4:] for name in self.tensors if name.startswith("out.")]
        self.queries = self.facts["query_idx"]

    def tower(self, exact_gelu: bool = False, enlargement: float = ENLARGEMENT) -> OpenClipTower:
        sizes = self.facts["model"]
        visual = VisionTransformer(
            sizes["image_size"],
            sizes["patch_size"],
            sizes["width"],
            sizes["layers"],
            sizes["heads"],
            sizes["mlp_ratio"],
            output_dim=sizes["output_dim"],
            act_layer=nn.GELU if exact_gelu else QuickGELU,
            norm_layer=partial(LayerNorm, eps=sizes["ln_eps"]),
        )
        weights = {k[8:]: v for k, v in self.tensors.items() if k.startswith("weights.")}
        visual.load_state_dict(weights)
        return OpenClipTower(visual.eval(), enlargement, by_count=True)

    def image(self, name: str) -> Tensor:
        """A normalised image [1, 3, H, W]."""
        mean, std = (torch.tensor(self.facts["preprocess"][key]) for key in ("mean", "std"))
        pixels = (self.tensors[f"in.image.{name}"].float() - mean) / std
        return pixels.permute(2, 0, 1)[None]

    def head(self, name: str) -> Head:
        """A head with the fixture's constants."""
        if name == "proxyclip":
            facts = self.facts["proxyclip"]
            return partial(HEADS[name], beta=facts["beta"], gamma=facts["gamma"])
        if name in ("naclip", "naclip-full-block", "naclip-neighbour-only"):
            return partial(HEADS[name], sigma=self.facts["naclip"]["gaussian_std"])
        return HEADS[name]

    def features(
        self,
        head: str,
        image: str,
        guide: str | None = None,
        as_released: bool = False,
        **tower: bool | float,
    ) -> Tensor:
        """Dense features [N, C] of an image under a head."""
        towers, pixels = self.tower(**tower), self.image(image)
        grid = (pixels.shape[2] // towers.patch, pixels.shape[3] // towers.patch)
        guiding = Guide(self.tensors[guide], as_released) if guide else None
        block = LastBlock(towers, towers.tokens(pixels), grid, guiding)
        return towers.embed(self.head(head)(block))[0]

    def encoded(
        self, head: str, image: str, protocol: Protocol, guides: tuple[str, ...] = ()
    ) -> EncodedView:
        """An image through a protocol's windows, one after the other."""
        model = _FixtureModel(self, head, [self.tensors[name] for name in guides])
        view = lay_windows(self.image(image)[0].numpy(), protocol)
        return encode_views(model, [view], batch=1)[0]

    def maps(
        self, head: str, image: str, protocol: Protocol, guides: tuple[str, ...] = ()
    ) -> PositionMaps:
        """Cosines at the original size of `image`."""
        shape = self.small_shape if image == "small" else tuple(self.facts["resize"]["original"])
        return cosine_maps(self, self.encoded(head, image, protocol, guides), shape)

    @property
    def pixels_allowed(self) -> float:
        """Pixels in which a label map may differ."""
        found = re.search(r"at most (\d+) pixels", self.facts["notes"]["tolerance"])
        return float(found[1]) if found else 0.0

    @property
    def small_shape(self) -> tuple[int, int]:
        """Original size of `small`, which no list of sizes has: it is in what its results mean."""
        texts = [text for name, text in self.facts["meaning"].items() if "small_padded" in name]
        found = re.search(r"output (\d+)x(\d+)", " ".join(texts))
        assert found, "the meaning of small_padded tells no size, as 'output 100x100'"
        return int(found[1]), int(found[2])

    @property
    def window_guides(self) -> tuple[str, ...]:
        """Guiding features of the windows, row by row."""
        names = [name for name in self.tensors if re.fullmatch(r"in\.vfm\.win\d+", name)]
        return tuple(sorted(names, key=lambda name: int(name.removeprefix("in.vfm.win"))))


def cosine_maps(fixture: Fixture, encoded: EncodedView, shape: tuple[int, int]) -> PositionMaps:
    cosines = encoded.grouped.embedding @ fixture.tensors["in.text"].T
    direct = len(encoded.view.boxes) == 1 and encoded.view.padding.shape == encoded.view.shape
    return PositionMaps.of(cosines, encoded, shape, direct=direct)


class _FixtureModel:
    """As much of a dense model as looking at an image needs; guides come in window order."""

    def __init__(self, fixture: Fixture, head: str, guides: list[Tensor]) -> None:
        self.tower, self.head, self.guides = fixture.tower(), fixture.head(head), guides

    def from_numpy(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values)

    def encode_image(self, pixels: Tensor) -> GroupedImage:
        grid = (pixels.shape[2] // self.tower.patch, pixels.shape[3] // self.tower.patch)
        guide = Guide(self.guides.pop(0)) if self.guides else None
        block = LastBlock(self.tower, self.tower.tokens(pixels), grid, guide)
        features = nn.functional.normalize(self.tower.embed(self.head(block)), dim=-1)
        return GroupedImage(features, grid if guide is None else tuple(guide.features.shape[-2:]))


def expectations(fixture: Fixture) -> dict[str, Callable[[], Tensor]]:
    """How ovseg computes each result."""
    return {
        **_trunk(fixture),
        **_features(fixture),
        **_logits(fixture),
        **_pamr(fixture),
        **_labels(fixture),
    }


def _trunk(f: Fixture) -> dict[str, Callable[[], Tensor]]:
    table = f.tensors["weights.positional_embedding"]
    patch = f.facts["model"]["patch_size"]
    wide = tuple(side // patch for side in f.image("wide").shape[2:])
    window = f.facts["window"]["crop"]
    wanted: dict[str, Callable[[], Tensor]] = {
        "common.pos_interp.wide": lambda: resize_positions(table, wide),
        "common.pos_interp_exact.wide": lambda: resize_positions(table, wide, enlargement=0.0),
        "common.tokens_before_last_block.square": lambda: f.tower().tokens(f.image("square"))[0],
        "common.tokens_before_last_block.wide": lambda: f.tower().tokens(f.image("wide"))[0],
        "clip_vanilla.cls.square": lambda: f.tower().visual(f.image("square"))[0],
        "proxyclip.vfm_input_win0": lambda: GuideNetwork(_Backbone(), CLIP).renormalise(
            f.image("resized")[:, :, :window, :window]
        )[0],
    }
    for name in f.names:
        if found := re.fullmatch(r"naclip\.gaussian_bias_(\d+)x(\d+)", name):
            wanted[name] = _bind(_bias, f, (int(found[1]), int(found[2])))
    return wanted


def _bias(f: Fixture, grid: tuple[int, int]) -> Tensor:
    bias = neighbourhood(grid, f.facts["naclip"]["gaussian_std"], 1, torch.zeros(()))
    # The class token asks nothing here, so its row of zeros is not computed.
    return nn.functional.pad(bias, (0, 0, 1, 0))


class _Backbone(nn.Module):
    """What `GuideNetwork` needs to exist; only the normalisation of the pixels is compared."""

    num_prefix_tokens = 1

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = nn.Module()
        self.patch_embed.patch_size = (8, 8)


def _features(f: Fixture) -> dict[str, Callable[[], Tensor]]:
    plain = {
        "clip_vanilla.features": "clip",
        "maskclip.features_reduced": "maskclip-reduced",
        "maskclip.features_fullblock": "maskclip",
        "sclip.features": "sclip",
        "clearclip.features": "clearclip",
        "naclip.features": "naclip",
        "naclip.features_fullblock": "naclip-full-block",
        "naclip.features_kk_only": "naclip-similarity-only",
        "naclip.features_neighbour_only": "naclip-neighbour-only",
        "clearclip.sclip_attention_reduced": "sclip-reduced",
    }
    wanted: dict[str, Callable[[], Tensor]] = {}
    for image in ("square", "wide"):
        for name, head in plain.items():
            wanted[f"{name}.{image}"] = _bind(f.features, head, image)
        wanted[f"maskclip.features_fullblock_exactpos.{image}"] = _bind(
            f.features, "maskclip", image, enlargement=0.0
        )
    for grid in ("square_coarse", "square_fine"):
        wanted[f"proxyclip.features.{grid}"] = _bind(
            f.features, "proxyclip", "square", guide=f"in.vfm.{grid}"
        )
    for name, fault in (("fixed", False), ("as_released", True)):
        wanted[f"proxyclip.features.wide_{name}"] = _bind(
            f.features, "proxyclip", "wide", guide="in.vfm.wide", as_released=fault
        )
    wanted["clearclip.features_gelu.square"] = _bind(
        f.features, "clearclip", "square", exact_gelu=True
    )
    wanted["proxyclip.features_gelu.square_coarse"] = _bind(
        f.features, "proxyclip", "square", guide="in.vfm.square_coarse", exact_gelu=True
    )
    return wanted


def windows_of(f: Fixture, pad_to: int = 1) -> Protocol:
    facts = f.facts["window"]
    return own(window=facts["crop"], stride=facts["stride"], pad_to=pad_to)


@cache
def method_maps(f: Fixture, method: str) -> ScoreMaps:
    """Cosines of `in.image.resized` at the original size, by a method's own windows."""
    if method.endswith("+pamr"):
        settings = f.facts["naclip"]["pamr"]
        pamr = Pamr(settings["iterations"], tuple(settings["dilations"]))
        plain = method_maps(f, method[:-5])
        guide = resize_bilinear(f.image("resized")[0], plain.shape)
        return RefinedMaps(plain, pamr.guided_by(guide))
    if method == "clearclip":
        patch = f.facts["model"]["patch_size"]
        return f.maps("clearclip", "resized", windows_of(f, patch))
    if method == "proxyclip":
        multiple = f.facts["proxyclip"]["pad_multiple"]
        windows = windows_of(f, multiple)
        return f.maps("proxyclip", "resized", windows, f.window_guides)
    if method == "sclip whole":
        return f.maps("sclip", "resized", own(window="none"))
    return f.maps(method, "resized", windows_of(f))


def class_probabilities(
    maps: ScoreMaps, owners: list[int], rule: PixelRule, *, renormalise: bool = False
) -> Tensor:
    """Probability of every class at every pixel, [K, H, W], as the methods write it.

    `renormalise` divides by the sum over the classes, as NACLIP does.
    """
    phrases = (maps.piece(slice(None)) * rule.scale).softmax(dim=0)
    classes = torch.tensor(owners)
    count = int(classes.max()) + 1
    found = torch.stack([phrases[classes == label].amax(dim=0) for label in range(count)])
    for label in small_classes(found.argmax(dim=0), rule.area_threshold, range(count)):
        found[label] = 0
    return found / found.sum(dim=0) if renormalise else found


def _logits(f: Fixture) -> dict[str, Callable[[], Tensor]]:
    def all_of(maps: ScoreMaps) -> Tensor:
        return maps.piece(slice(None))

    def first_window() -> Tensor:
        encoded = f.encoded("sclip", "resized", windows_of(f))
        cosines = encoded.grouped.embedding[0] @ f.tensors["in.text"].T
        grid = cosines.reshape(*encoded.grouped.grid, -1)
        found = all_of(PositionMaps.on_grid(grid, encoded.view.padding.shape))
        stored = f.tensors["out.sclip.window0_logits"]  # of every so many pixels
        step = round(found.shape[-1] / stored.shape[-1])
        return found[:, ::step, ::step]

    crop = 2 * max(f.image("small").shape[2:])  # larger than the image
    patch, multiple = f.facts["model"]["patch_size"], f.facts["proxyclip"]["pad_multiple"]
    small = {
        "clearclip": (own(window=crop, stride=crop // 2, pad_to=patch), ()),
        "proxyclip": (own(window=crop, stride=crop // 2, pad_to=multiple), ("in.vfm.small",)),
    }
    return {
        "sclip.logits": lambda: all_of(method_maps(f, "sclip")),
        "naclip.logits": lambda: all_of(method_maps(f, "naclip")),
        "clearclip.logits": lambda: all_of(method_maps(f, "clearclip")),
        "proxyclip.logits": lambda: all_of(method_maps(f, "proxyclip")),
        "sclip.logits_whole": lambda: all_of(method_maps(f, "sclip whole")),
        "sclip.window0_logits": first_window,
        "sclip.logits_pamr": lambda: all_of(method_maps(f, "sclip+pamr")),
        "naclip.logits_pamr": lambda: all_of(method_maps(f, "naclip+pamr")),
        "clearclip.logits_small_padded": lambda: all_of(
            f.maps("clearclip", "small", *small["clearclip"])
        ),
        "proxyclip.logits_small_padded": lambda: all_of(
            f.maps("proxyclip", "small", *small["proxyclip"])
        ),
    }


def _pamr(f: Fixture) -> dict[str, Callable[[], Tensor]]:
    """Results are named `pamr.d<dilations>_i<iterations>`, or `pamr.lowmask_d...`."""
    wanted: dict[str, Callable[[], Tensor]] = {}
    for name in f.names:
        if not name.startswith("pamr."):
            continue
        mask = "in.pamr.mask_low" if "lowmask" in name else "in.pamr.mask"
        dilations, iterations = name.split("d", 1)[1].rsplit("_i", 1)
        pamr = Pamr(int(iterations), tuple(int(d) for d in dilations.split("_")))
        wanted[name] = _bind(_refine, pamr, f.tensors["in.pamr.image"], f.tensors[mask])
    return wanted


def _refine(pamr: Pamr, image: Tensor, mask: Tensor) -> Tensor:
    return pamr.guided_by(image[0]).refine(mask[0])


def _labels(f: Fixture) -> dict[str, Callable[[], Tensor]]:
    wanted: dict[str, Callable[[], Tensor]] = {}
    for name in f.names:
        if found := re.fullmatch(r"naclip\.probs_renormalised\.pamr_scale(\d+)(_sub\d+)?", name):
            rule, maps = PixelRule(float(found[1])), method_maps(f, "naclip+pamr")
            made = _bind(class_probabilities, maps, f.queries, rule, renormalise=True)
            wanted[name.removesuffix(found[2] or "")] = made
    for variant, facts in f.facts["sclip_label_variants"].items():
        rule = _rule(facts)
        wanted[f"sclip.labels.{variant}"] = _bind(_label, f, "sclip", f.queries, facts)
        wanted[f"sclip.probs.{variant}"] = _bind(_probabilities, f, "sclip", f.queries, rule)
    for name, facts in f.facts["other_labels"].items():
        method = name.split(".")[0] + ("+pamr" if "pamr" in name else "")
        alone = "query_idx" in facts
        queries = list(range(len(f.queries))) if alone else f.queries
        wanted[name] = _bind(_label, f, method, queries, facts)
    return wanted


def _rule(facts: dict[str, float | None]) -> PixelRule:
    return PixelRule(facts["logit_scale"], facts.get("area_thd"))


def _label(f: Fixture, method: str, queries: list[int], facts: dict[str, float | None]) -> Tensor:
    threshold = facts.get("prob_thd") or 0.0
    return label_pixels(method_maps(f, method), queries, _rule(facts), [threshold]).at(threshold)


def _probabilities(f: Fixture, method: str, queries: list[int], rule: PixelRule) -> Tensor:
    return class_probabilities(method_maps(f, method), queries, rule)


def _bind(function: Callable[..., Tensor], *args: object, **named: object) -> Callable[[], Tensor]:
    return lambda: function(*args, **named)


@torch.inference_mode()
def check(prefix: Path) -> list[Row]:
    """A row for every `out.*` of the fixture, and one for the resize of the image."""
    fixture = Fixture(prefix)
    compute = expectations(fixture)
    rows = [_resize_row(fixture)]
    for name in fixture.names:
        whole, step = _thinned(name)
        function = compute.get(whole)
        if function is None:
            rows.append(Row(name, float("inf"), 0.0, "no rule computes it"))
            continue
        found = function()
        rows.append(_compare(name, found[..., ::step, ::step] if step > 1 else found, fixture))
    return rows


def _thinned(name: str) -> tuple[str, int]:
    """What was stored, and every how many rows and columns of it: `x_sub2` are every second."""
    found = re.fullmatch(r"(.+)_sub(\d+)", name)
    return (found[1], int(found[2])) if found else (name, 1)


def _compare(name: str, found: Tensor, fixture: Fixture) -> Row:
    expected = fixture.tensors[f"out.{name}"]
    if found.shape != expected.shape:
        return Row(name, float("inf"), 0.0, f"{list(found.shape)} for {list(expected.shape)}")
    if expected.dtype == torch.uint8:
        return Row(name, float((found != expected).sum()), fixture.pixels_allowed, "pixels")
    allowed = LOOSER if "pamr" in name else TOLERANCE
    difference = (found - expected).abs().max() / expected.abs().max()
    return Row(name, float(difference), LOOSEST if "renormalised" in name else allowed)


def _resize_row(fixture: Fixture) -> Row:
    facts = fixture.facts["resize"]
    found = resize(fixture.tensors["in.image.ori"].numpy(), tuple(facts["resized"]))
    differing = (found != fixture.tensors["in.image.resized"].numpy()).sum()
    return Row("in.image.resized", float(differing), 0.0, "values")


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print(__doc__)
        return 2
    rows = check(Path(arguments[0]))
    for row in rows:
        mark = "ok  " if row.passes else "FAIL"
        print(f"{mark} {row.name:52} {row.error:9.2e}  allowed {row.allowed:.0e} {row.unit}")
    failed = sum(not row.passes for row in rows)
    print(f"{len(rows)} rows, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
