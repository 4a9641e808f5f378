"""What a run would do, without doing it: steps, samples, FLOPs, memory, time."""

import time
from dataclasses import dataclass

import torch

from ovseg.config.schema import Recipe
from ovseg.training.aligned.features import CacheNeed
from ovseg.training.aligned.forecast import forecast
from ovseg.training.feed.source import PairSource, open_source, share_of
from ovseg.training.flops import Cost, pair_cost, peak_flops, text_sizes
from ovseg.training.optim import Schedule, schedule_of
from ovseg.training.step import PRECISIONS

TYPICAL_LENGTHS = (28, 28, 14)
"""Tokens of captions, masked captions and prompts at the padding of a batch of web captions."""
_GPU_SHARE, _HOST_SHARE = 0.4, 0.5  # of the peak, and of a plain matrix product's rate here


@dataclass(frozen=True)
class Plan:
    """Attributes:
    pairs: in the data; None for a stream.
    steps, epoch_steps: optimizer steps of the run and of an epoch.
    global_batch: pairs of a step.
    samples: pairs that the run sees.
    parameters, trained: numbers in the model, and those of them that are trained.
    flops: of the whole run.
    memory: bytes of a device, an estimate.
    seconds: of the whole run, an estimate.
    rate_from: what the estimate of time rests on.
    cache: space for the features of frozen towers; None where none are kept.
    """

    pairs: int | None
    steps: int
    epoch_steps: int
    global_batch: int
    samples: int
    parameters: int
    trained: int
    flops: float
    memory: int
    seconds: float
    rate_from: str
    schedule: Schedule
    cost: Cost
    cache: CacheNeed | None = None


def plan_run(recipe: Recipe, world_size: int) -> Plan:
    """Plan a run on `world_size` devices like this machine's.

    Builds the model with random weights; nothing is fetched if the recipe gives the text encoder's
    sizes.

    Raises:
        RecipeError, DataError: what would stop the run.
    """
    source = open_source(recipe)
    share = share_of(recipe, 0, world_size)
    epoch_steps = source.steps_per_epoch(recipe, share)
    schedule = schedule_of(recipe.schedule, epoch_steps, share.total)
    if recipe.model.aligned is not None:
        return _plan_aligned(recipe, source, epoch_steps, schedule, share.total)
    total, trained = count_parameters(recipe)
    longest = recipe.model.text.max_tokens
    lengths = [min(length, longest) for length in TYPICAL_LENGTHS]
    if not recipe.loss.entity.enabled:
        lengths = lengths[:1]
    cost = pair_cost(
        recipe.model,
        lengths,
        recipe.train.freeze_text,
        recipe.loss.mask.enabled,
        recipe.data.accumulation,
    )
    samples = schedule.steps * share.total
    rate, origin = _rate(PRECISIONS[recipe.train.precision])
    return Plan(
        pairs=None if source.index is None else len(source.index),
        steps=schedule.steps,
        epoch_steps=epoch_steps,
        global_batch=share.total,
        samples=samples,
        parameters=total,
        trained=trained,
        flops=cost.total * samples,
        memory=memory_estimate(recipe, total, trained),
        seconds=cost.total * samples / (rate * world_size),
        rate_from=origin,
        schedule=schedule,
        cost=cost,
    )


def _plan_aligned(
    recipe: Recipe, source: PairSource, epoch_steps: int, schedule: Schedule, batch: int
) -> Plan:
    expected = forecast(recipe)
    samples = schedule.steps * batch
    flops = expected.head_flops * samples + expected.tower_flops
    rate, origin = _rate(PRECISIONS[recipe.train.precision])
    return Plan(
        pairs=None if source.index is None else len(source.index),
        steps=schedule.steps,
        epoch_steps=epoch_steps,
        global_batch=batch,
        samples=samples,
        parameters=expected.parameters,
        trained=expected.trained,
        flops=flops,
        memory=expected.memory,
        seconds=flops / rate,
        rate_from=origin,
        schedule=schedule,
        cost=Cost(image=0.0, text=0.0, momentum=0.0, heads=expected.head_flops),
        cache=expected.cache,
    )


def count_parameters(recipe: Recipe) -> tuple[int, int]:
    """Numbers in the model, and of them those that are trained."""
    from ovseg.models.ovsegmentor.build import build_ovsegmentor

    with torch.device("meta"):  # shapes without memory
        model = build_ovsegmentor(recipe.model)
    total = sum(p.numel() for p in model.parameters())
    frozen = sum(p.numel() for p in model.text_encoder.parameters())
    return total, total - frozen if recipe.train.freeze_text else total


def memory_estimate(recipe: Recipe, total: int, trained: int) -> int:
    """Bytes on one device: weights, gradients and moments in fp32, and activations.

    A transformer block keeps about 16 widths of numbers a token for its backward pass when
    attention does not keep its scores; a recomputed one keeps 1.
    """
    image, text = recipe.model.image, text_sizes(recipe.model.text)
    size = 4 if recipe.train.precision == "fp32" else 2
    states = 4 * total + 12 * trained
    if recipe.loss.mask.enabled:
        states += 4 * (total - trained if recipe.train.freeze_text else total) // 2
    tokens = (image.image_size // image.patch) ** 2 + image.group_tokens
    kept = 1 if image.checkpointing else 16
    per_image = kept * image.width * (image.depths[0] * tokens + image.depths[1] * image.groups)
    words = 0 if recipe.train.freeze_text else sum(TYPICAL_LENGTHS)
    per_text = 16 * text.width * text.depth * words
    activations = recipe.data.batch_size * (per_image + per_text) * size
    if recipe.loss.mask.enabled:
        masks = recipe.data.batch_size * image.groups * recipe.loss.mask.resolution**2
        activations += 6 * 4 * masks
    return int(states + activations)


def _rate(precision: torch.dtype) -> tuple[float, str]:
    """FLOP/s to expect of this machine, and why."""
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        peak = peak_flops(name)
        if peak:
            return _GPU_SHARE * peak, f"{_GPU_SHARE:.0%} of the bf16 peak of {name}"
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    side = 1024
    matrix = torch.randn(side, side, device=device).to(precision)
    (matrix @ matrix).sum().item()
    started = time.perf_counter()
    for _ in range(3):
        product = matrix @ matrix
    product.sum().item()
    rate = 3 * 2 * side**3 / (time.perf_counter() - started)
    return _HOST_SHARE * rate, f"{_HOST_SHARE:.0%} of this {device.type}'s matrix product"
