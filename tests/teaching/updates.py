"""Updates of towers by chance, and taught starters with them."""

from pathlib import Path

import numpy as np
from torch import nn

from ovseg.models.registry import load_model
from ovseg.models.starter.model import StarterModel
from ovseg.models.taught.factors import Factors, Updates
from ovseg.models.taught.file import read_note, read_taught, write_taught
from ovseg.models.taught.low_rank import weights_of


def random_updates(tower: nn.Module, size: float = 0.1) -> Updates:
    """Of rank 2."""
    chance = np.random.default_rng(0)
    return {
        name: Factors(
            *(
                chance.normal(0, size, shape).astype(np.float32)
                for shape in ((weight.shape[0], 2), (2, weight[0].numel()))
            )
        )
        for name, weight in weights_of(tower).items()
    }


def with_updates(taught: Path, output: Path) -> Updates:
    """Write a taught starter again, its tower updated, and return the updates."""
    updates = random_updates(StarterModel().tower, 0.02)
    head = read_taught(taught, lambda name, _: load_model(name, "cpu")).taught.head
    write_taught(output, read_note(taught), head, None, updates)
    return updates
