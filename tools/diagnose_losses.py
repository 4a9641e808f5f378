"""Why a loss may teach nothing: what entity completion looks at, and what masks are compared with.

    python -m tools.diagnose_losses runs/ablation/entity-released-0/last.safetensors ...

A caption with its entities masked still tells how many there are and in which order, and that alone
narrows down which prompt of the batch belongs to it. Where the loss is the same with another
pair's image, that is all a model has learned. And a pseudo mask that is on everywhere, as those of
new weights are, says nothing about where an entity is.
"""

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import torch

from ovseg.config.schema import Recipe
from ovseg.distributed import Processes
from ovseg.losses.contrastive import contrastive_loss
from ovseg.losses.mask import attention_masks, binary_targets
from ovseg.models.checkpoint import load_state, read_info
from ovseg.models.ovsegmentor.image_encoder import EncodedImage
from ovseg.models.ovsegmentor.network import OVSegmentor
from ovseg.models.tensor_files import read_tensors
from ovseg.training.aligned.feed import FeatureBatch
from ovseg.training.aligned.lesson import AlignedStep
from ovseg.training.aligned.trainee import AlignedTrainee
from ovseg.training.batch import Batch
from ovseg.training.feed.collate import build_collator
from ovseg.training.feed.source import open_source, share_of
from ovseg.training.feed.vocabulary import build_tokenizer
from ovseg.training.start import build_model
from ovseg.training.step import normalised

STEPS = 8


@dataclass(frozen=True)
class Finding:
    """What one batch showed.

    Attributes:
        right, other: loss of entity completion with the right image and with another pair's.
        largest: largest raw mask value, of either sign.
        on: share of the pixels at which binarised pseudo masks are on.
    """

    right: float
    other: float
    largest: float
    on: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoints", type=Path, nargs="+")
    for path in parser.parse_args().checkpoints:
        found = findings(path)
        right, other, on = (
            fmean(getattr(each, name) for each in found) for name in ("right", "other", "on")
        )
        largest = max(each.largest for each in found)
        print(
            f"{path}: entity loss {right:.3f}, with another's image {other:.3f}; raw masks within "
            f"±{largest:.2f}, their targets on at {on:.1%} of the pixels"
        )
    return 0


@torch.no_grad()
def findings(path: Path) -> list[Finding]:
    """Those of a few batches of the training pairs."""
    recipe = with_entities(read_info(path).recipe)
    if recipe.model.aligned is not None:
        return aligned_findings(path, recipe)
    source = open_source(recipe)
    texts = build_tokenizer(recipe, source)
    model = build_model(recipe)
    load_state(model, read_tensors(path), str(path))
    model.train()  # as the losses were trained: each batch's own statistics
    model.text_encoder.eval()
    torch.manual_seed(0)
    collator = build_collator(recipe, source, texts)
    share = share_of(recipe, 0, 1)
    batches = map(collator.__getitems__, source.sampler(recipe, share, 0, STEPS))
    return [finding(model, batch, recipe) for batch in batches]


def aligned_findings(path: Path, recipe: Recipe) -> list[Finding]:
    """Those of an aligned model with groups, on the features of its towers."""
    trainee = AlignedTrainee(Processes(), torch.device("cpu"), recipe)
    trainee.prepare(lambda *_: None)
    step = trainee.step_for(None)
    trainee.load(read_tensors(path), str(path))
    torch.manual_seed(0)
    return [aligned_finding(step, batch, recipe) for batch in trainee.batches(0, STEPS)]


def aligned_finding(step: AlignedStep, batch: FeatureBatch, recipe: Recipe) -> Finding:
    side, grid = recipe.loss.mask.resolution, step.tables.grid
    seen = step.see(batch)
    assert seen.grouped is not None
    binding = seen.grouped.binding
    masks = attention_masks(binding.query, binding.key, grid, (side, side))
    targets = binary_targets(masks, recipe.loss.mask.threshold)
    # By two, as `both`.
    other = replace(seen.grouped, groups=seen.grouped.groups.roll(2, dims=0))
    right, wrong = (
        float(step.entities(batch, groups, batch.valid)) for groups in (seen.grouped, other)
    )
    return Finding(right, wrong, float(masks.abs().max()), float(targets.mean()))


def with_entities(recipe: Recipe) -> Recipe:
    """The recipe with questions in its batches, whether it was trained on them or not."""
    entity = recipe.loss.entity.model_copy(update={"enabled": True})
    return recipe.model_copy(update={"loss": recipe.loss.model_copy(update={"entity": entity})})


def finding(model: OVSegmentor, batch: Batch, recipe: Recipe) -> Finding:
    binding = model.encode_image(normalised(batch.images)).binding
    side, grid = recipe.loss.mask.resolution, model.image_encoder.stored_grid
    masks = attention_masks(binding.query, binding.key, grid, (side, side))
    targets = binary_targets(masks, recipe.loss.mask.threshold)
    right, other = both(model, batch)
    return Finding(right, other, float(masks.abs().max()), float(targets.mean()))


def both(model: OVSegmentor, batch: Batch) -> tuple[float, float]:
    """The loss of a batch with the right images, and with each image given to the next pair."""
    assert batch.questions is not None
    masked, prompt = batch.questions.masked, batch.questions.prompt
    image = model.encode_image(normalised(batch.images))
    text = model.encode_text(masked.ids, masked.mask)
    wanted = model.embed_text(model.encode_text(prompt.ids, prompt.mask).sentence)
    present = batch.questions.present

    def loss(seen: EncodedImage) -> float:
        answer = model.embed_answer(model.complete_entities(text, seen))
        return float(contrastive_loss(answer, wanted, model.scale, present))

    # By two: in paired epochs the neighbour shares an entity.
    return loss(image), loss(replace(image, groups=image.groups.roll(2, dims=0)))


if __name__ == "__main__":
    sys.exit(main())
