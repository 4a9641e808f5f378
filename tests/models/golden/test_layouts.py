"""Prefix tokens, registers and resized positions are where they were: stored outputs still hold."""

import json
from importlib.metadata import version

import pytest
import torch

pytest.importorskip("transformers.models.tipsv2")

from tests.models.golden.make import PATH
from tests.models.golden.small import MODELS, summary

SEEN = json.loads(PATH.read_text())


def test_every_model_is_stored() -> None:
    assert set(SEEN) == set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_the_layout_is_the_one_that_was_seen(name: str) -> None:
    library, compute = MODELS[name]
    seen = SEEN[name]
    where = (
        f"{library} {version(library)} gives {name} another layout than {seen['from']} to "
        f"{seen['to']} did: see what it changed, then python -m tests.models.golden.make"
    )
    with torch.inference_mode():
        found = summary(compute())
    assert found["shape"] == seen["values"]["shape"], where
    for key, values in seen["values"].items():
        assert found[key] == pytest.approx(values, abs=2e-4), f"{where} ({key})"


def test_a_moved_token_shows() -> None:
    _, compute = MODELS["dinov2 with registers"]
    with torch.inference_mode():
        tokens = compute()
    moved = summary(torch.cat([tokens[1:], tokens[:1]]))
    wanted = SEEN["dinov2 with registers"]["values"]["first of each token"]
    assert moved["first of each token"] != pytest.approx(wanted, abs=2e-4)
