"""Compare aligned models with what the released implementation of Talk2DINO computed.

    python tests/parity/check_aligned.py tests/parity/data/talk2dino-a

The argument is a prefix: PREFIX.json says how large the model is and how it is read, and
PREFIX.safetensors holds weights, inputs (`in.*`) and what came of them (`out.*`). One row is
printed per quantity: its name, the largest absolute difference, the tolerance, and whether it
passes. The exit code is 1 if a row does not. With --json they are printed as JSON.

Tokens and attention logits may differ by 3e-5, what comes of them by 1e-5, after PAMR by 2e-5;
gradients by 1e-3 of their maximum; weights after three steps by 2e-6 where there is a gradient.
Label maps agree but for 5 pixels.
"""

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a file, Python looks for `tests` in its folder alone
    sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from ovseg.data.class_list import ClassList
from ovseg.inference.encode import encode_views
from ovseg.inference.labeller import EncodedPicture, Labeller
from ovseg.inference.protocol import Protocol
from ovseg.inference.refine.pamr import Pamr
from ovseg.inference.resize import resize_bilinear
from ovseg.inference.views import lay_windows
from ovseg.losses.contrastive import contrastive_loss
from ovseg.losses.pooling import chosen_heads
from ovseg.models.projection import Projection
from ovseg.models.timm_tower import head_vectors
from tests.parity.aligned_fixture import AlignedFixture, Read
from tests.parity.rows import Row, run_check

TOKENS, DERIVED, REFINED, GRADIENT, STEPPED = 3e-5, 1e-5, 2e-5, 1e-3, 2e-6
LEAST_GRADIENT = 1e-7


def compare(prefix: Path) -> Iterator[Row]:
    """Every quantity of the fixture."""
    fixture = AlignedFixture(prefix)
    parts = (_rotary,) if fixture.rotary else (_training, _inference)
    for part in parts:
        yield from filter(None, part(fixture))


def _rotary(f: AlignedFixture) -> Iterator[Row | None]:
    image = f.values["in.image"]
    pixels = f.squared(image)
    yield f.row("preprocessed", pixels, DERIVED)
    with torch.no_grad():
        found = f.tower(0.0)(pixels[None])
    yield f.row("tokens", torch.cat([found.leading, found.patches], dim=1), TOKENS)
    for name in f.names:
        if name.startswith("attention_logits"):
            yield f.row(name, f.read(pixels[None], name).logits, TOKENS)
    words = f.values["in.text"]
    yield from _masks(f, "", pixels, words, image)
    scores = _scored(f, "mask_bg_clean_scale0125", pixels, words)
    yield f.labels("labels", _upsampled(scores, image).argmax(0))


def _inference(f: AlignedFixture) -> Iterator[Row | None]:
    words = _class_embeddings(f)
    yield f.row("text", words, DERIVED)
    crop = f.facts["inference"]["crop"]
    window = f.values["in.image.resized"][:crop, :crop]
    pixels = f.squared(window)
    read = f.read(pixels[None])
    yield f.row("window0.preprocessed", pixels, DERIVED)
    yield f.row("window0.cls_token", read.cls, TOKENS)
    yield f.row("window0.patch_tokens", read.patches, TOKENS)
    for name in f.names:
        if name.startswith("window0.attention_logits"):
            yield f.row(name, f.read(pixels[None], name).logits, TOKENS)
    yield from _masks(f, "window0.", pixels, words, window)
    whole = f.values["in.image.whole"]
    for prefix, antialias in (("whole.", True), ("whole_noantialias.", False)):
        pixels = f.squared(whole, antialias)
        yield f.row(f"{prefix}preprocessed", pixels, DERIVED)
        yield from _masks(f, prefix, pixels, words, whole)
    for tag in sorted({name.split(".")[1] for name in f.names if name.startswith("slide.")}):
        yield from _slide(f, tag, words)


def _class_embeddings(f: AlignedFixture) -> Tensor:
    """As `AlignedPredictor.encode_text`, from features that are given."""
    features = f.values["in.text.templates"].mean(dim=1)  # [K, E]
    with torch.no_grad():
        projected = f.projection("proj_inference")(features)
    return functional.normalize(projected, dim=-1)


def _scored(f: AlignedFixture, name: str, pixels: Tensor, words: Tensor) -> Tensor:
    """Scores of classes at the positions of one image, [K, h, w], by the model itself."""
    clean = f.facts["inference"]["lambda_bg"] if "clean" in name else 0.0
    predictor = f.predictor(clean, name)
    grouped = predictor.encode_image(f.for_model(pixels)[None])
    # The threshold decides no score of a class; that there is one lets attention count.
    scores = predictor.score(grouped, words, 0.5 if clean else None)[0, :, 1:]
    return scores.T.reshape(-1, *grouped.grid)


def _upsampled(maps: Tensor, image: Tensor) -> Tensor:
    return resize_bilinear(maps, (image.shape[0], image.shape[1]), align_corners=True)


def _masks(
    f: AlignedFixture, prefix: str, pixels: Tensor, words: Tensor, image: Tensor
) -> Iterator[Row | None]:
    """Cosines, scores and masks of one image that is looked at once, as far as there are any."""
    for name in f.names:
        what = name.removeprefix(prefix)
        if not name.startswith(prefix) or "." in what:
            continue
        if what == "cosine":
            grouped = f.predictor(0.0).encode_image(f.for_model(pixels)[None])
            yield f.row(name, (grouped.embedding[0] @ words.T).T, DERIVED)
        elif what == "sigmoid" or what.startswith("bg_clean"):
            yield f.row(name, _scored(f, what, pixels, words), DERIVED)
        elif what.startswith("mask"):
            maps = _upsampled(_scored(f, what, pixels, words), image)
            refined = what.endswith("pamr")
            if refined:
                guide = image.permute(2, 0, 1).float()
                maps = _pamr(f).guided_by(guide).refine(maps)
            yield f.row(name, maps, REFINED if refined else DERIVED)


def _pamr(f: AlignedFixture) -> Pamr:
    settings = f.facts["inference"]["pamr"]
    return Pamr(settings["iterations"], tuple(settings["dilations"]))


def _slide(f: AlignedFixture, tag: str, words: Tensor) -> Iterator[Row | None]:
    """Windows, by the one way from pixels to labels."""
    rule, pamr = f.facts["inference"], "pamr" in tag
    background = not tag.startswith("nobg")
    protocol = Protocol(
        "parity",
        "model",
        window=rule["crop"],
        stride=rule["stride"][0],
        align_corners=True,
        templates=("{}",),
        background=background,
        threshold=rule["bg_thresh"],
        refine="pamr" if pamr else "none",
        refine_windows=True,
        clean="clean" in tag,
        pamr_iterations=rule["pamr"]["iterations"],
        pamr_dilations=tuple(rule["pamr"]["dilations"]),
    )
    predictor = f.predictor(rule["lambda_bg"])
    classes = ClassList.of([f"class {number}" for number in range(len(words))])
    labeller = Labeller(predictor, protocol, classes, _Given(words))  # type: ignore[arg-type]
    pixels = f.for_model(f.normalised(f.values["in.image.resized"]))
    views = encode_views(predictor, [lay_windows(pixels.numpy(), protocol)])
    rows, columns = f.values["in.image.ori"].shape[:2]
    picture = EncodedPicture(labeller, views, (rows, columns))
    threshold = labeller.threshold
    maps = picture.maps(labeller._scores_of(picture.views, threshold))
    scores = maps.piece(slice(0 if background else 1, None))
    (labels,) = labeller.labels_at(views, (rows, columns), [threshold])
    found = {
        "scores": lambda name: f.row(name, scores, REFINED if pamr else DERIVED),
        "softmax_sub2": lambda name: f.row(name, scores.softmax(0)[:, ::2, ::2], DERIVED),
        "labels": lambda name: f.labels(name, labels - (0 if background else 1)),
    }
    for name in f.names:
        if name.startswith(f"slide.{tag}."):
            yield found[name.split(".")[2]](name)


class _Given:
    """In place of a cache: class embeddings that are given."""

    def __init__(self, words: Tensor) -> None:
        self.words = words

    def get(self, phrases: Any, templates: Any) -> np.ndarray:
        return self.words.numpy()


def _training(f: AlignedFixture) -> Iterator[Row | None]:
    images = [f.values[f"in.train.image{number}"] for number in range(len(_texts(f)))]
    pixels = torch.stack([f.normalised(_cropped(image, f.side)) for image in images])
    read = f.read(pixels)
    count = read.patches.shape[1]
    yield f.row("train.preprocessed_first2", pixels[:2], DERIVED)
    yield f.row("train.cls", read.cls, TOKENS)
    yield f.row("train.patch_tokens", read.patches, TOKENS)
    for name in f.names:
        logits = f.read(pixels, name).logits if name.startswith("train.") else read.logits
        if name.startswith("train.cls_attention_logits"):
            yield f.row(name, logits, TOKENS)
        elif name.startswith("train.cls_attention"):
            yield f.row(name, logits.softmax(-1), DERIVED)
        elif name.startswith("train.head_vectors"):
            yield f.row(name, head_vectors(read.patches, logits) / count, DERIVED)
        elif name.startswith("train.avg_vector"):
            yield f.row(name, _average(read.patches, logits) / count, DERIVED)
    yield from _loss(f, read)


def _texts(f: AlignedFixture) -> Tensor:
    return f.values["in.train.text"]


def _cropped(image: Tensor, side: int) -> Tensor:
    """Pillow's bicubic to the shorter side, and the middle."""
    height, width = image.shape[:2]
    shorter = min(height, width)
    size = (int(width * side / shorter), int(height * side / shorter))
    resized = np.array(Image.fromarray(image.numpy()).resize(size, Image.Resampling.BICUBIC))
    top, left = (round((length - side) / 2) for length in resized.shape[:2])
    return torch.from_numpy(resized[top : top + side, left : left + side])


def _average(patches: Tensor, logits: Tensor) -> Tensor:
    """The mean by the attention of all heads together, [B, D]."""
    return head_vectors(patches, logits.mean(dim=1, keepdim=True)).squeeze(1)


def _loss(f: AlignedFixture, read: Read) -> Iterator[Row | None]:
    heads, texts = head_vectors(read.patches, read.logits), _texts(f)
    projection = f.projection("proj")
    loss = _talk2dino_loss(f, projection, heads, texts)
    loss.backward()
    own = projection(texts).detach()
    chosen = chosen_heads(heads, own)
    unit = partial(functional.normalize, dim=-1)
    nearest = (unit(heads) * unit(own)[:, None]).sum(-1)  # [B, A]
    yield f.row("train.projected_text", own, DERIVED)
    yield f.labels("train.head_index", nearest.argmax(dim=1), 0)
    yield f.row("train.similarity", unit(own) @ unit(chosen).T, DERIVED)
    yield f.row("train.loss", loss, DERIVED)
    average = _average(read.patches, read.logits)
    yield f.row("train.similarity_val_avg", unit(own) @ unit(average).T, DERIVED)
    yield f.row("train.loss_val_avg", _contrast(f, own, average), DERIVED)
    yield from _other_rules(f, unit(heads), unit(own))
    for name, parameter in projection.named_parameters():
        covers = f"train.grad.{_released(name)}"
        if covers not in f.names:
            continue
        wanted = f.values[f"out.{covers}"]
        assert parameter.grad is not None
        yield f.row(covers, parameter.grad, GRADIENT * float(wanted.abs().max()))
    yield from _steps(f, heads, texts)


def _contrast(f: AlignedFixture, texts: Tensor, images: Tensor) -> Tensor:
    """Talk2DINO's loss: symmetric cross-entropy by the square of the batch."""
    scale = torch.tensor(1 / f.told(r"temperature ([\d.]+)"))
    return contrastive_loss(texts, images, scale) / len(texts) ** 2


def _talk2dino_loss(
    f: AlignedFixture, projection: Projection, heads: Tensor, texts: Tensor
) -> Tensor:
    projected = projection(texts)
    return _contrast(f, projected, chosen_heads(heads, projected))


def _other_rules(f: AlignedFixture, heads: Tensor, texts: Tensor) -> Iterator[Row | None]:
    """Other rules of the released class, on our heads [B, A, D] and texts [B, D], unit length."""
    own = torch.einsum("bad,bd->ba", heads, texts).softmax(-1)
    weighted = (own[..., None] * heads).mean(dim=1)
    every = torch.einsum("iad,cd->iac", heads, texts)  # [images, heads, captions]
    found = {
        "weighted_avg": texts @ weighted.T,
        "mean": every.mean(dim=1),
        "sum": every.sum(dim=1),
        "max-row_sum": every.amax(dim=1),
    }
    for rule, similarity in found.items():
        if f"train.similarity_{rule}" in f.names:
            yield f.row(f"train.similarity_{rule}", similarity, DERIVED)


def _steps(f: AlignedFixture, heads: Tensor, texts: Tensor) -> Iterator[Row | None]:
    """Three steps of Adam: on the first pairs, the others, and all."""
    projection = f.projection("proj")
    optimizer = torch.optim.Adam(projection.parameters(), lr=f.facts["train"]["lr_3steps"])
    losses, moved = [], {name: torch.zeros(()) for name, _ in projection.named_parameters()}
    first = int(f.told(r"first (\d+)"))
    for rows in (slice(0, first), slice(first, None), slice(None)):
        optimizer.zero_grad()
        loss = _talk2dino_loss(f, projection, heads[rows], texts[rows])
        loss.backward()
        losses.append(loss.detach())
        for name, parameter in projection.named_parameters():
            assert parameter.grad is not None
            moved[name] = torch.maximum(moved[name], parameter.grad.abs())
        optimizer.step()
    yield f.row("train.mean_loss_3steps", torch.stack(losses).mean(), DERIVED)
    for name, parameter in projection.named_parameters():
        covers = f"train.after3.{_released(name)}"
        if covers not in f.names:
            continue
        wanted = f.values[f"out.{covers}"]
        # Where a gradient is rounding alone, Adam's first step is as large as anywhere.
        compared = parameter.detach().where(moved[name] > LEAST_GRADIENT, wanted)
        yield f.row(covers, compared, STEPPED)


def _released(name: str) -> str:
    """The released name of a layer of ours."""
    layers = {"hidden": "linear_layer", "linear": "linear_layer", "out": "hidden_layers.0"}
    layer, _, part = name.partition(".")
    return f"{layers[layer]}.{part}"


def main(arguments: list[str]) -> int:
    """Print the rows of one fixture; 0 if all pass, 1 if one does not, 2 if called wrongly."""
    return run_check(arguments, __doc__, compare)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
