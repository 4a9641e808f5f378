"""Compare ovseg with what the reference implementation computed.

    python tests/parity/check.py tests/parity/data/reference-a

The argument is a prefix: PREFIX.pth is the reference's model, PREFIX.json says how large it is, and
PREFIX.safetensors holds inputs (`in.*`) and what came of them (`out.*`). One row is printed per
quantity and precision: its name, the largest absolute difference, the tolerance, and whether it
passes. The exit code is 1 if a row does not. With --json they are printed as JSON.

Embeddings, assignments and scores may differ by 1e-5 of the tensor's maximum, losses by 1e-4 and
gradients by 1e-3 in float32, all by a hundredth of that in float64. Label maps agree in every
pixel. Resized pixels differ by more than 1 of 255 in at most a thousandth of the values.
"""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# A gradient of the fixture hangs on which side of zero the input of one unit falls in float32.
# Vectorised kernels round otherwise on every kind of processor; plain ones are the same everywhere.
# Set for this command alone: whoever merely imports this file starts children of his own.
if __name__ == "__main__":
    os.environ.setdefault("ATEN_CPU_CAPABILITY", "default")
    sys.path.insert(0, str(Path(__file__).parents[2]))  # the clone, of which `tests` is a package

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from ovseg.config.schema import (
    EntityDecoderConfig,
    ImageEncoderConfig,
    ModelConfig,
    TextEncoderConfig,
)
from ovseg.data.images import resize, resized_shape
from ovseg.inference.encode import encode_views
from ovseg.inference.groups import regions
from ovseg.inference.labels import strongest
from ovseg.inference.maps import RegionMaps
from ovseg.inference.protocol import own
from ovseg.inference.views import Box, lay_windows
from ovseg.models.interface import ModelCard
from ovseg.models.ovsegmentor.build import build_image_encoder, build_ovsegmentor
from ovseg.models.ovsegmentor.conversion import MOMENTUM_PREFIX, our_key, released_to_ours
from ovseg.models.ovsegmentor.image_encoder import ImageEncoder
from ovseg.models.ovsegmentor.network import OVSegmentor
from ovseg.models.ovsegmentor.predictor import Predictor
from ovseg.models.ovsegmentor.released import read_released
from ovseg.models.ovsegmentor.text_encoder import EncodedText
from ovseg.models.tokenizer import Tokens
from ovseg.training.batch import Batch, CrossImages, Questions
from ovseg.training.step import LossWeights, StepResult, TrainingStep
from tests.parity.rows import Row, run_check

PRECISIONS = {"float32": torch.float32, "float64": torch.float64}
FEATURE, LOSS, GRADIENT = 1e-5, 1e-4, 1e-3  # shares of a tensor's maximum, in float32
SCORE_STEP = 8  # scores are stored at every 8th pixel
PROTOCOL = (448, 2048)  # shorter side, and at most the longer one


@dataclass(frozen=True)
class Fixture:
    """A fixture, with floats in the precision to compare in."""

    sizes: dict[str, Any]
    state: dict[str, Tensor]
    values: dict[str, Tensor]
    precision: str

    @classmethod
    def read(cls, prefix: Path, precision: str) -> "Fixture":
        sizes = json.loads(prefix.with_name(f"{prefix.name}.json").read_text(encoding="utf-8"))
        state = dict(read_released(prefix.with_name(f"{prefix.name}.pth")).tensors)
        values = load_file(prefix.with_name(f"{prefix.name}.safetensors"))
        return cls(sizes, state, values, precision)

    @property
    def dtype(self) -> torch.dtype:
        return PRECISIONS[self.precision]

    def images(self, name: str) -> Tensor:
        """Images as the model saw them."""
        return self.normalise(self.values[f"in.{name}_u8"])

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 images as the model saw them."""
        return (images.to(self.dtype) - 127.5) / 63.75

    def class_embeddings(self) -> Tensor:
        return self.values["out.class_embeddings"].to(self.dtype)

    def config(self) -> ModelConfig:
        """Our recipe for the reference's sizes; drop rates are 0."""
        image, text, state = self.sizes["img"], self.sizes["text"], self.state
        patch_weight = state["img_encoder.patch_embed.proj.weight"]
        return ModelConfig(
            embedding_width=self.sizes["output_dim"],
            projector_width=len(state["img_projector.linear_out.weight"][0]),
            image=ImageEncoderConfig(
                width=image["embed_dim"],
                depths=tuple(image["depths"]),
                heads=image["num_heads"][0],
                patch=patch_weight.shape[-1],
                image_size=image["img_size"],
                drop_path=0.0,
                group_tokens=image["num_group_tokens"][0],
                groups=image["num_output_groups"][0],
            ),
            text=TextEncoderConfig(
                encoder="",
                architecture="bert",
                width=text["hidden_size"],
                depth=text["num_hidden_layers"],
                heads=text["num_attention_heads"],
                mlp_width=text["intermediate_size"],
                vocab_size=text["vocab_size"],
                max_positions=text["max_position_embeddings"],
                max_tokens=min(77, text["max_position_embeddings"]),
            ),
            entity=EntityDecoderConfig(mask_padding=False),  # as the reference
        )

    def model(self) -> OVSegmentor:
        model = build_ovsegmentor(self.config())
        model.load_state_dict(released_to_ours(self.state))
        return model.to(self.dtype).eval()

    def momentum_encoder(self) -> ImageEncoder:
        encoder = build_image_encoder(self.config().image)
        twin = {
            name.replace(MOMENTUM_PREFIX, "img_encoder.", 1): tensor
            for name, tensor in self.state.items()
            if name.startswith(MOMENTUM_PREFIX)
        }
        ours = released_to_ours(twin)
        encoder.load_state_dict({n.removeprefix("image_encoder."): t for n, t in ours.items()})
        return encoder.to(self.dtype)

    def row(self, covers: str, ours: Tensor, share: float) -> Row:
        """Compare a tensor; the tolerance is a share of the reference's maximum."""
        reference = self.values[f"out.{covers}"].double()
        ours = ours.detach().double()
        if reference.numel() != ours.numel():
            return Row(covers, self.precision, float("nan"), 0.0)
        difference = float((ours.reshape(reference.shape) - reference).abs().max())
        share *= 1.0 if self.precision == "float32" else 0.01
        return Row(covers, self.precision, difference, share * float(reference.abs().max()))

    def labels(self, covers: str, ours: Tensor) -> Row:
        """Compare a label map; the difference is the number of pixels that disagree."""
        wrong = float((ours != self.values[f"out.{covers}"]).sum())
        return Row(covers, self.precision, wrong, 0.0)


def compare(prefix: Path) -> Iterator[Row]:
    """Every quantity of the fixture, in float32 and float64."""
    for precision in PRECISIONS:
        fixture = Fixture.read(prefix, precision)
        with torch.no_grad():
            yield from _features(fixture)
            yield from _label_maps(fixture)
        yield from _training(fixture)
    yield _resized(fixture)


def _features(fixture: Fixture) -> Iterator[Row]:
    model = fixture.model()
    found = model.encode_image(fixture.images("image"))
    yield fixture.row("image_x", model.embed_image(found.groups), FEATURE)
    yield fixture.row("image_feat", model.embed_groups(found.groups), FEATURE)
    yield fixture.row("group_feat_before_proj", found.groups, FEATURE)
    yield fixture.row("assign_soft", found.binding.soft, FEATURE)
    yield fixture.row("assign_hard", found.binding.hard, FEATURE)
    yield fixture.row("assign_q", found.binding.query, FEATURE)
    yield fixture.row("assign_k", found.binding.key, FEATURE)
    wide = model.encode_image(fixture.images("wide"))
    yield fixture.row("wide_image_x", model.embed_image(wide.groups), FEATURE)
    yield fixture.row("wide_image_feat", model.embed_groups(wide.groups), FEATURE)
    yield fixture.row("wide_soft", wide.binding.soft, FEATURE)
    caption = _text(fixture, model, "caption")
    yield fixture.row("text_tokens", caption.tokens, FEATURE)
    yield fixture.row("text_x", model.embed_text(caption.sentence), FEATURE)


def _text(fixture: Fixture, model: OVSegmentor, name: str) -> EncodedText:
    ids = fixture.values[f"in.{name}.input_ids"]
    return model.encode_text(ids, fixture.values[f"in.{name}.attention_mask"])


def _label_maps(fixture: Fixture) -> Iterator[Row]:
    """Zero-shot inference, through the code that `ovseg segment` runs."""
    card = ModelCard("parity", "ovsegmentor", "", "", "")
    predictor = Predictor(fixture.model(), _no_tokenizer, card)
    variants = [name[len("out.pred_sq_") :] for name in fixture.values if "out.pred_sq_" in name]
    for variant in variants:
        background, threshold = variant.split("_")
        limit = float(threshold) if background == "bg1" else None
        yield from _one_pass(fixture, predictor, variant, limit)
        yield _windows(fixture, predictor, variant, limit)


def _no_tokenizer(texts: Any) -> Any:
    raise AssertionError("the class embeddings are given")


def _one_pass(
    fixture: Fixture, predictor: Predictor, variant: str, threshold: float | None
) -> Iterator[Row]:
    first = 0 if threshold is not None else 1  # our column 0 is always background
    for name, pixels in (
        ("sq", fixture.images("image")[:1]),
        ("wide", fixture.images("wide")),
    ):
        grouped = predictor.encode_image(pixels)
        scores = predictor.score(grouped, fixture.class_embeddings(), threshold)  # [1, G, 1 + K]
        size = (pixels.shape[-2], pixels.shape[-1])
        groups = regions(grouped, size)
        assert groups is not None
        maps = RegionMaps(scores, groups, (Box(0, 0, *size),), size, size)
        _, labels = strongest(maps, first)
        yield fixture.labels(f"pred_{name}_{variant}", labels - first)
        if name == "sq":
            logits = scores[0].T[first:, groups[0, ::SCORE_STEP, ::SCORE_STEP]]
            yield fixture.row(f"logits_sq_{variant}", logits, FEATURE)


def _windows(fixture: Fixture, predictor: Predictor, variant: str, threshold: float | None) -> Row:
    name = f"slide_pred_{variant}"
    view = lay_windows(fixture.images("wide")[0].numpy(), own(window=448, stride=224))
    (encoded,) = encode_views(predictor, [view])
    scores = predictor.score(encoded.grouped, fixture.class_embeddings(), threshold)
    box = view.boxes[0]
    groups = regions(encoded.grouped, (box.height, box.width))
    height, width = fixture.values[f"out.{name}"].shape
    maps = RegionMaps(scores, groups, view.boxes, view.shape, (height, width))
    first = 0 if threshold is not None else 1
    return fixture.labels(name, strongest(maps, first)[1] - first)


def _training(fixture: Fixture) -> Iterator[Row]:
    """Losses and gradients of one training step without noise, dropout or drop path."""
    batch = _batch(fixture)
    side, count = fixture.sizes["img"]["img_size"], len(batch)
    settings: dict[str, Any] = {"mask_images": count, "resolution": side}  # a sum over the images
    model, result = _step(fixture, batch, LossWeights(mask=0.1, **settings))
    yield fixture.row("loss_matching", result.contrastive, LOSS)
    yield fixture.row("loss_entity", result.entity, LOSS)
    yield fixture.row("loss_mask", result.mask, LOSS)
    yield fixture.row("loss_loss", result.total, LOSS)
    yield from _gradients(fixture, model, "grad_total_")
    model, _ = _step(fixture, batch, LossWeights(contrastive=0, entity=0, mask=1, **settings))
    yield from _gradients(fixture, model, "grad_mask_")


def _step(fixture: Fixture, batch: Batch, weights: LossWeights) -> tuple[OVSegmentor, StepResult]:
    """A step as `ovseg pretrain` takes it; the model comes back with its gradients."""
    model, momentum = fixture.model().train(), fixture.momentum_encoder().train()
    model.text_encoder.eval()  # no dropout; the text encoder has nothing else to train differently
    for encoder in (model.image_encoder, momentum):
        encoder.binding.gumbel_noise = False
    step = TrainingStep(model, momentum, weights, normalise=fixture.normalise)
    return model, step([batch])


def _batch(fixture: Fixture) -> Batch:
    """The fixture's inputs as the loader would deliver them."""

    def text(name: str) -> Tokens:
        mask = fixture.values[f"in.{name}.attention_mask"].bool()
        return Tokens(fixture.values[f"in.{name}.input_ids"], mask)

    images, crossed = (fixture.values[f"in.{name}_u8"] for name in ("image", "cross_image"))
    rows = torch.arange(len(images))
    everything = torch.ones(len(images), dtype=torch.bool)
    return Batch(
        images,
        text("caption"),
        everything,
        Questions(text("question"), text("answer"), everything),
        CrossImages(crossed, rows, text("cross_entity"), everything),
    )


def _gradients(fixture: Fixture, model: OVSegmentor, prefix: str) -> Iterator[Row]:
    parameters = dict(model.named_parameters())
    for name, key in fixture.sizes["gradients"].items():
        if f"out.{prefix}{name}" in fixture.values:
            gradient = parameters[str(our_key(key))].grad
            assert gradient is not None
            yield fixture.row(f"{prefix}{name}", gradient, GRADIENT)


def _resized(fixture: Fixture) -> Row:
    """Share of values that differ by more than one grey level."""
    raw, expected = (fixture.values[name].numpy() for name in ("in.raw_u8", "out.resized_u8"))
    ours = resize(raw, resized_shape(*raw.shape[:2], *PROTOCOL))
    if ours.shape != expected.shape:
        return Row("resized_u8", "uint8", float("nan"), 1e-3)
    far = np.abs(ours.astype(int) - expected.astype(int)) > 1
    return Row("resized_u8", "uint8", float(far.mean()), 1e-3)


def main(arguments: list[str]) -> int:
    """Print the rows of one fixture; 0 if all pass, 1 if one does not, 2 if called wrongly."""
    return run_check(arguments, __doc__, compare)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
