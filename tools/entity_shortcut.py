"""Does masked entity completion look at the image? Its loss with the right image and another's.

    python tools/entity_shortcut.py runs/ablation/entity-released-0 ...

A caption with its entities masked still tells how many there are and in which order, and that alone
narrows down which prompt of the batch belongs to it. Where both numbers are the same, that is all
a model has learned.
"""

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor

from ovseg.config.loading import load_recipe
from ovseg.losses.entity import entity_loss
from ovseg.model.checkpoint import load_state, read_tensors
from ovseg.model.ovsegmentor import OVSegmentor
from ovseg.train import setup
from ovseg.train.batch import Batch
from ovseg.train.step import normalised

STEPS = 8


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", type=Path, nargs="+")
    for run in parser.parse_args().runs:
        right, other = torch.tensor(losses_of(run)).mean(dim=0).tolist()
        print(f"{run.name}: {right:.3f} with the right image, {other:.3f} with another's")
    return 0


@torch.no_grad()
def losses_of(run: Path) -> list[tuple[float, float]]:
    """Both losses of a few batches of the training pairs."""
    recipe = load_recipe(str(run / "recipe.toml"))
    source = setup.open_source(recipe)
    texts = setup.build_texts(recipe, source)
    model = setup.build_model(recipe)
    path = run / "last.safetensors"
    load_state(model, read_tensors(path), str(path))
    model.train()  # as the loss was trained: each batch's own statistics
    model.text_encoder.eval()
    torch.manual_seed(0)
    maker = setup.build_maker(recipe, source, texts)
    share = setup.share_of(recipe, 0, 1)
    batches = map(maker.__getitems__, source.sampler(recipe, share, 0, STEPS))
    return [both(model, batch) for batch in batches]


def both(model: OVSegmentor, batch: Batch) -> tuple[float, float]:
    """The loss of a batch with the right images, and with each image given to the next pair."""
    assert batch.questions is not None
    masked, prompt = batch.questions.masked, batch.questions.prompt
    groups = model.encode_image(normalised(batch.images)).groups
    tokens = model.encode_text(masked.ids, masked.mask)
    wanted = model.text_projector(model.encode_text(prompt.ids, prompt.mask).sentence)

    def loss(seen: Tensor) -> float:
        answer = model.bridge_projector(model.entity_decoder(tokens.tokens, tokens.mask, seen))
        present = batch.questions.present if batch.questions else None
        return float(entity_loss(answer, wanted, model.scale, present))

    # By two: in paired epochs the neighbour shares an entity.
    return loss(groups), loss(groups.roll(2, dims=0))


if __name__ == "__main__":
    sys.exit(main())
