"""How fast training is.

    pytest --benchmark-only -s tests/benchmarks/test_training_benchmark.py

Each benchmark prints ratios of things timed in turns in one run, since a busy machine slows them
alike. OVSEG_BENCH_BATCH is the number of pairs (4 on a CPU, 256 on a GPU by default).
"""

import os
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import pytest
import torch
from torch import Tensor

from ovseg.config.schema import ImageEncoderConfig, ModelConfig, OptimizerConfig, TextEncoderConfig
from ovseg.models.ovsegmentor.build import build_ovsegmentor
from ovseg.models.ovsegmentor.network import OVSegmentor
from ovseg.models.tokenizer import Tokens
from ovseg.training.batch import Batch, CrossImages, Questions
from ovseg.training.flops import batch_lengths, pair_cost, peak_flops
from ovseg.training.optim import MomentumEncoder, Updater, build_optimizer
from ovseg.training.step import LossWeights, TrainingStep, normalised
from tests.benchmarks.sizes import full

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
HALF = DEVICE.type == "cuda"
PRECISION = torch.bfloat16 if HALF else torch.float32
BATCH = int(os.environ.get("OVSEG_BENCH_BATCH", full(256 if HALF else 4, 2)))
ROUNDS = int(os.environ.get("OVSEG_BENCH_ROUNDS", full(10 if HALF else 3, 1)))
BERT = TextEncoderConfig(
    encoder="",
    architecture="bert",
    width=768,
    depth=full(12, 1),
    heads=12,
    mlp_width=3072,
    vocab_size=30_522,
    max_positions=512,
)
IMAGE = ImageEncoderConfig(backbone="", depths=full((6, 6), (1, 1)))
LENGTHS = {"caption": 28, "masked": 28, "prompt": 14, "entity": 4}


@pytest.fixture(scope="module")
def model() -> OVSegmentor:
    """ViT-B/16 and BERT-base."""
    torch.manual_seed(0)
    return build_ovsegmentor(ModelConfig(image=IMAGE, text=BERT)).to(DEVICE).train()


def tokens(length: int) -> Tokens:
    ids = torch.randint(1000, 30_000, (BATCH, length), device=DEVICE)
    return Tokens(ids, torch.ones_like(ids, dtype=torch.bool))


def batch(partners: str = "none", padded: int = 0) -> Batch:
    """Random pairs; `padded` pads every text to that length."""
    images = torch.randint(0, 256, (BATCH, 3, 224, 224), dtype=torch.uint8, device=DEVICE)
    texts = {name: tokens(padded or length) for name, length in LENGTHS.items()}
    everything = torch.ones(BATCH, dtype=torch.bool, device=DEVICE)
    rows = torch.arange(BATCH, device=DEVICE)
    cross = None
    if partners != "none":
        crossed = None if partners == "in-batch" else images.flip(0)
        cross = CrossImages(crossed, rows ^ 1, texts["entity"], everything)
    questions = Questions(texts["masked"], texts["prompt"], everything)
    return Batch(images, texts["caption"], everything, questions, cross)


def full_step(model: OVSegmentor, pairs: Batch, mask: float = 0.0) -> Callable[[], Any]:
    """A step with its update."""
    momentum = MomentumEncoder(model.image_encoder, 0.99) if mask else None
    encoder = None if momentum is None else momentum.encoder
    step = TrainingStep(model, encoder, LossWeights(mask=mask), PRECISION)
    update = Updater(model, build_optimizer(model, OptimizerConfig()), 5.0)

    def run() -> None:
        update.begin()
        losses = step([pairs])
        update.apply(losses.total, 1e-6)
        if momentum is not None:
            momentum.follow()

    return run


def losses_alone(model: OVSegmentor, pairs: Batch) -> Callable[[], Any]:
    """A step without its update, whose cost does not depend on the batch."""
    step = TrainingStep(model, None, LossWeights(), PRECISION)

    def run() -> None:
        model.zero_grad(set_to_none=True)
        step([pairs])

    return run


def bare_encoders(model: OVSegmentor, pairs: Batch) -> Callable[[], Any]:
    """Forward and backward of the encoders alone, on the same images and texts."""
    assert pairs.questions is not None
    texts = (pairs.caption, pairs.questions.masked, pairs.questions.prompt)

    def run() -> None:
        model.zero_grad(set_to_none=True)
        with torch.autocast(DEVICE.type, PRECISION, enabled=HALF):
            total: Tensor = model.encode_image(normalised(pairs.images)).groups.float().sum()
            for text in texts:
                total = total + model.encode_text(text.ids, text.mask).sentence.float().sum()
        total.backward()

    return run


def as_the_reference(model: OVSegmentor, pairs: Batch) -> Callable[[], Any]:
    """A step on texts padded to 77, all of whose tokens go through the projector as well."""
    step = full_step(model, pairs)
    assert pairs.questions is not None
    texts = (pairs.caption, pairs.questions.masked, pairs.questions.prompt)
    rows = torch.randn(BATCH * 77, 768, device=DEVICE)

    def run() -> None:
        step()
        for _ in texts:
            with torch.autocast(DEVICE.type, PRECISION, enabled=HALF):
                model.text_projector(rows).float().sum().backward()

    return run


def in_turns(**timed: Callable[[], Any]) -> dict[str, float]:
    """Median seconds of each, all of them once per round."""
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for number in range(ROUNDS + 1):
        for name, run in timed.items():
            _wait()
            started = time.perf_counter()
            run()
            _wait()
            if number:  # the first is a warm-up
                seconds[name].append(time.perf_counter() - started)
    return {name: median(values) for name, values in seconds.items()}


def _wait() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def report(seconds: dict[str, float], *lines: str) -> None:
    shown = ", ".join(f"{name} {value * 1e3:.0f} ms" for name, value in seconds.items())
    print(f"\n{BATCH} pairs on {DEVICE}, {PRECISION}: {shown}", *lines, sep="\n  ")


def test_stage_1_step(model: OVSegmentor, benchmark: Any) -> None:
    """Against the bare encoders (at most 1.10) and against the reference's padding (1.6)."""
    pairs, padded = batch(), batch(padded=77)
    step = full_step(model, pairs)
    seconds = in_turns(
        step=step,
        losses=losses_alone(model, pairs),
        bare=bare_encoders(model, pairs),
        reference=as_the_reference(model, padded),
    )
    config = ModelConfig(image=IMAGE, text=BERT)
    flops = pair_cost(config, batch_lengths(pairs)).total * BATCH
    name = torch.cuda.get_device_name() if DEVICE.type == "cuda" else ""
    peak = peak_flops(name)
    report(
        seconds,
        f"step / bare encoders: {seconds['step'] / seconds['bare']:.2f} (target <= 1.10)",
        f"without the update: {seconds['losses'] / seconds['bare']:.2f}",
        f"reference / step: {seconds['reference'] / seconds['step']:.2f} (target >= 1.6)",
        f"{BATCH / seconds['step']:.1f} pairs/s, {flops / seconds['step'] / 1e12:.2f} TFLOP/s",
        f"MFU {flops / seconds['step'] / peak:.1%}" if peak else "MFU unknown",
    )
    benchmark.pedantic(step, rounds=1)


def test_stage_2_step(model: OVSegmentor, benchmark: Any) -> None:
    """With in-batch and with separate partners, against stage 1 (at most 1.5)."""
    steps = {
        "stage1": full_step(model, batch()),
        "in_batch": full_step(model, batch("in-batch"), 0.1),
        "exact": full_step(model, batch("exact"), 0.1),
    }
    seconds = in_turns(**steps)
    report(
        seconds,
        f"in-batch / stage 1: {seconds['in_batch'] / seconds['stage1']:.2f} (target <= 1.5)",
        f"exact / stage 1: {seconds['exact'] / seconds['stage1']:.2f}, without its decoding",
    )
    benchmark.pedantic(steps["in_batch"], rounds=1)


def test_mask_resolution(benchmark: Any) -> None:
    """How far the mask loss at smaller sides is from the one at 224, and what it takes."""
    from ovseg.losses.mask import mask_consistency_loss

    generator = torch.Generator().manual_seed(0)
    query, cross = (torch.randn(32, 8, 64, generator=generator) for _ in range(2))
    key = torch.randn(32, 196, 64, generator=generator)
    relevance = torch.randn(32, 8, generator=generator)

    def loss(side: int) -> Tensor:
        return mask_consistency_loss(query, cross, key, relevance, (14, 14), (side, side))

    exact = loss(224)
    for side in full((14, 27, 40, 53, 56, 79, 105, 112, 131, 157), (14, 112)):
        seconds = in_turns(small=lambda s=side: loss(s), full=lambda: loss(224))
        found = abs(float(loss(side) / exact) - 1)
        print(
            f"\nside {side}: off by {found:.1e}, {seconds['full'] / seconds['small']:.1f}x faster",
            end="",
        )
    benchmark.pedantic(loss, (224,), rounds=1)
