"""The shipped recipes with towers of random weights, small enough to run in a second."""

from pathlib import Path

from ovseg.config.load import load_recipe
from ovseg.config.schema import Recipe

VISION = (
    "model.aligned.vision.image_size=32",
    "model.aligned.vision.width=16",
    "model.aligned.vision.depth=1",
    "model.aligned.vision.heads=2",
    "model.aligned.vision.patch=8",
    "model.aligned.vision.table=4",
    "model.aligned.vision.mlp_ratio=1.0",
)
TEXT = (
    "model.text.encoder=",
    "model.text.tokenizer=bytes",
    "model.text.architecture=bert",
    "model.text.width=16",
    "model.text.depth=1",
    "model.text.heads=2",
    "model.text.mlp_width=16",
    "model.text.vocab_size=261",
    "model.text.max_positions=64",
    "model.text.max_tokens=64",
)
SHORT = (
    "data.positions=0",
    "schedule.max_steps=0",
    "data.held_out=8",
    "data.batch_size=8",
    "data.workers=0",
    "schedule.epochs=2",
    "schedule.warmup_epochs=0.0",
    "schedule.reference_batch=8",
    "train.log_every=1",
)
GROUPING = (
    "model.aligned.grouping=true",
    "model.projector_width=16",
    "model.image.width=16",
    "model.image.depths=[1, 1]",
    "model.image.heads=2",
    "model.image.group_tokens=6",
    "model.image.groups=4",
    "model.image.drop_path=0.0",
    "model.entity.heads=2",
    "loss.entity.enabled=true",
    "loss.mask.enabled=true",
    "loss.mask.resolution=16",
    "data.captions=pairs",
    "data.partners=in-batch",
)


def tiny(name: str, data: Path, cache: Path, *more: str) -> Recipe:
    """A shipped recipe on some data, its features in a folder of the test."""
    places = (f'data.shards=["{data}"]', f"data.cache={cache}")
    width = ("model.embedding_width=16",) if name == "talk2dino" else ("model.embedding_width=12",)
    projected = ("model.aligned.clip_projection=false",)
    return load_recipe(name, [*VISION, *TEXT, *SHORT, *width, *projected, *places, *more])
