"""Start weights for the ablations: a small ViT that has learned what a pretrained network sees.

    python tools/distil_backbone.py --shards scenes-shards --output starts

The paper starts from DINO. A ViT small enough for a processor has no such weights, so its first
stage learns to predict, patch by patch, the class logits of the EfficientNet-Lite0 that ovseg
carries (ImageNet labels; no label, mask or caption of the scenes is used). Everything behind that
stage stays random, by each seed: OUTPUT/BINDING-SEED.safetensors, for `train.start_from`.
"""

import argparse
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ovseg.config.loading import load_recipe
from ovseg.config.schema import Recipe
from ovseg.model.checkpoint import write_checkpoint
from ovseg.model.image_encoder import ImageEncoder
from ovseg.model.starter.model import StarterModel
from ovseg.train import setup
from ovseg.train.feed.augmentation import augmentation_of
from ovseg.train.feed.decoding import decode
from ovseg.train.step import normalised

TEACHER_SIDE = 128  # pixels
COMPONENTS = 128


def main() -> int:
    options = parse()
    changes = [f'data.shards=["{options.shards}"]', *options.changes]
    recipes = {
        (binding, seed): load_recipe(
            "ablation-mask",
            [*changes, f"model.image.binding={binding}", f"train.seed={seed}"],
        )
        for binding in ("released", "slot")
        for seed in options.seeds
    }
    first = next(iter(recipes.values()))
    source = setup.open_source(first)
    torch.manual_seed(0)
    images = crops(first, source, options.images)  # [M, 3, S, S]
    targets = components(teach(images, first))  # [M, N, C]
    encoder = setup.build_model(first).image_encoder
    learn(encoder, images, targets, options)
    stage1 = {
        name: tensor
        for name, tensor in encoder.state_dict().items()
        if name.startswith(("patch_embed.", "position", "stage1."))
    }
    for (binding, seed), recipe in recipes.items():
        model = setup.build_model(recipe)
        model.image_encoder.load_state_dict(stage1, strict=False)
        write_checkpoint(
            options.output / f"{binding}-{seed}.safetensors",
            model.state_dict(),
            recipe,
            tokenizer=setup.build_texts(recipe, source).files,
            description="start weights: first stage distilled from EfficientNet-Lite0",
        )
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shards", required=True, help="folder of ovseg build-dataset")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--images", type=int, default=8000)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes")
    return parser.parse_args()


def crops(recipe: Recipe, source: setup.Source, count: int) -> Tensor:
    """One random crop of each of the first images, uint8 [M, 3, T, T], T the teacher's side."""
    assert source.index is not None
    augment = augmentation_of(recipe.augmentation, TEACHER_SIDE)
    made = [
        augment(decode(source.index.image(row)), row)
        for row in range(min(count, len(source.index)))
    ]
    return torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2)


@torch.inference_mode()
def teach(images: Tensor, recipe: Recipe) -> Tensor:
    """The teacher's logits at every patch of the student, float [M, N, 1000]."""
    image = recipe.model.image
    grid = (image.image_size // image.patch,) * 2
    network = StarterModel().network
    found = []
    for part in images.split(64):
        logits = network((part.float() - 127.5) / 127.5)  # [B, 1000, h, w]
        logits = functional.interpolate(logits, size=grid, mode="bilinear", align_corners=False)
        found.append(logits.flatten(2).mT)
        report(f"teacher: {len(found) * 64} of {len(images)} images")
    return torch.cat(found)


def components(logits: Tensor) -> Tensor:
    """Their principal components, the first of variance 1, float [M, N, C]."""
    flat = logits.flatten(0, 1)
    flat = flat - flat.mean(dim=0)
    basis = torch.linalg.eigh(flat.T @ flat)[1].flip(1)[:, :COMPONENTS]
    projected = flat @ basis
    return (projected / projected[:, :1].std()).unflatten(0, logits.shape[:2])


def learn(
    encoder: ImageEncoder, images: Tensor, targets: Tensor, options: argparse.Namespace
) -> None:
    """Train the first stage and a linear head to predict the targets of each patch."""
    size = encoder.stored_grid[0] * encoder.patch
    small = torch.stack([shrunk(image, size) for image in images])
    head = nn.Sequential(
        nn.LayerNorm(encoder.position.shape[1]), nn.Linear(encoder.position.shape[1], COMPONENTS)
    )
    trained = [*encoder.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(trained, lr=0.0, weight_decay=0.05)
    batch, started = 64, time.perf_counter()
    steps = options.epochs * (len(small) // batch)
    encoder.train()
    for step in range(steps):
        rows = torch.randint(len(small), (batch,))
        loss = functional.mse_loss(head(patches_of(encoder, small[rows])), targets[rows])
        optimizer.zero_grad()
        loss.backward()
        rate = 1e-3 * min(1, (step + 1) / 100) * 0.5 * (1 + np.cos(np.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        nn.utils.clip_grad_norm_(trained, 5.0)
        optimizer.step()
        if step % 50 == 0 or step == steps - 1:
            share = float(loss) / float(targets[rows].var())
            report(f"step {step} of {steps}: {share:.3f} of the variance left")
    report(f"{time.perf_counter() - started:.0f} s")


def patches_of(encoder: ImageEncoder, images: Tensor) -> Tensor:
    """Patches after the first stage, float [B, N, D]."""
    patches = encoder.embed_patches(normalised(images), encoder.stored_grid)
    tokens = encoder.group_tokens.expand(len(images), -1, -1)
    x = torch.cat([patches, tokens], dim=1)
    for block in encoder.stage1:
        x = block(x)
    return x[:, : patches.shape[1]]


def shrunk(image: Tensor, size: int) -> Tensor:
    pixels = image.permute(1, 2, 0).numpy()
    small = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(small).permute(2, 0, 1)


def report(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
