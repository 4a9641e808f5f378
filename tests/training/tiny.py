"""A model and batches small enough to compute by the hundred."""

from dataclasses import replace

import torch
from torch import Tensor

from ovseg.config.schema import (
    EntityDecoderConfig,
    ImageEncoderConfig,
    ModelConfig,
    TextEncoderConfig,
)
from ovseg.models.ovsegmentor.build import build_ovsegmentor
from ovseg.models.ovsegmentor.network import OVSegmentor
from ovseg.models.tokenizer import Tokens
from ovseg.training.batch import Batch, CrossImages, Questions

VOCABULARY = 60


def tiny_config(binding: str = "released") -> ModelConfig:
    return ModelConfig(
        embedding_width=8,
        projector_width=16,
        image=ImageEncoderConfig(
            backbone="",
            width=16,
            depths=(1, 1),
            heads=2,
            image_size=32,
            patch=8,
            group_tokens=6,
            groups=4,
            drop_path=0.0,
            binding=binding,
        ),
        text=TextEncoderConfig(
            encoder="",
            architecture="bert",
            width=16,
            depth=1,
            heads=2,
            mlp_width=32,
            vocab_size=VOCABULARY,
            max_positions=16,
            max_tokens=16,
        ),
        entity=EntityDecoderConfig(heads=2),
    )


def tiny_model(seed: int = 0, noise: bool = False, binding: str = "released") -> OVSegmentor:
    """In training mode and double precision; without noise unless asked for."""
    torch.manual_seed(seed)
    model = build_ovsegmentor(tiny_config(binding)).double().train()
    if not noise:
        model.text_encoder.eval()
        if binding == "released":
            model.image_encoder.binding.gumbel_noise = False
    return model


def tokens(count: int, length: int, generator: torch.Generator) -> Tokens:
    ids = torch.randint(5, VOCABULARY, (count, length), generator=generator)
    lengths = torch.randint(2, length + 1, (count,), generator=generator)
    return Tokens(ids=ids, mask=torch.arange(length)[None] < lengths[:, None])


def tiny_batch(count: int, seed: int = 1, partners: str = "in-batch") -> Batch:
    """Pairs of which neighbours share an entity; some rows do not count."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
    crossed = torch.randint(0, 256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
    in_batch = partners == "in-batch"
    rows = torch.arange(count)
    return Batch(
        images=images,
        caption=tokens(count, 9, generator),
        valid=_mostly(count, generator),
        questions=Questions(
            masked=tokens(count, 7, generator),
            prompt=tokens(count, 5, generator),
            present=_mostly(count, generator),
        ),
        cross=CrossImages(
            images=None if in_batch else crossed,
            partner=rows ^ 1 if in_batch else rows,
            entity=tokens(count, 3, generator),
            present=_mostly(count, generator),
        ),
        keys=tuple(f"pair{row}" for row in range(count)),
    )


def _mostly(count: int, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator) < 0.8


def rows_of(batch: Batch, rows: slice) -> Batch:
    """Some pairs of a batch; partners must lie among them."""

    def part(x: Tokens) -> Tokens:
        return Tokens(ids=x.ids[rows], mask=x.mask[rows])

    questions, cross = batch.questions, batch.cross
    assert questions is not None and cross is not None
    return replace(
        batch,
        images=batch.images[rows],
        caption=part(batch.caption),
        valid=batch.valid[rows],
        questions=Questions(
            part(questions.masked), part(questions.prompt), questions.present[rows]
        ),
        cross=CrossImages(
            None if cross.images is None else cross.images[rows],
            cross.partner[rows] - rows.start,
            part(cross.entity),
            cross.present[rows],
        ),
        keys=batch.keys[rows],
    )
