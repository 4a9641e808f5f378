"""Low-rank updates of towers: which weights they reach, and what is left of them afterwards."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ovseg.errors import ModelError, UsageError
from ovseg.models.interface import TunableModel, to_numpy
from ovseg.models.registry import load_model
from ovseg.models.taught.factors import (
    PREFIX,
    Factors,
    as_arrays,
    digest_of,
    from_arrays,
    read_updates,
    write_updates,
)
from ovseg.models.taught.head import seen_in
from ovseg.models.taught.low_rank import learning, merge, merged, require_tunable
from tests.evaluation.fakes import FakeModel
from tests.models.aligned.tiny import ROTARY, small_aligned, write_tiny
from tests.models.clip.tiny import write_folder
from tests.models.ovsegmentor.test_predictor import write_small_checkpoint
from tests.teaching.updates import random_updates

FAMILIES = ("starter", "clip", "ovsegmentor", "aligned", "rotary")


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TunableModel:
    folder = tmp_path_factory.mktemp(request.param)
    rotary = small_aligned({"tower": ROTARY})
    names = {
        "starter": lambda: "starter",
        "clip": lambda: f"clip:{write_folder(folder / 'clip')}",
        "ovsegmentor": lambda: str(write_small_checkpoint(folder)),
        "aligned": lambda: str(write_tiny(folder / "base.safetensors")),
        "rotary": lambda: str(write_tiny(folder / "base.safetensors", rotary)),
    }
    return require_tunable(load_model(names[request.param](), "cpu", in_torch=True))


def _pixels(model: TunableModel) -> torch.Tensor:
    values = np.random.default_rng(0).normal(size=(1, 3, 64, 64))
    return model.from_numpy(values.astype(np.float32))


def test_gradients_reach_the_factors_alone(model: TunableModel) -> None:
    pixels = _pixels(model)
    before = model.encode_image(pixels).embedding
    state = {name: each.clone() for name, each in model.tower.state_dict().items()}
    with learning(model.tower, 2, seed=0) as layers:
        assert torch.equal(model.encode_image(pixels).embedding, before)  # up is zero
        seen_in(model.look(pixels)).square().sum().backward()
        ups = [each.up.grad for each in layers.values()]
        own = [each for layer in layers.values() for each in layer.parameters()]
        others = [each for each in model.tower.parameters() if not any(each is o for o in own)]
        assert len(others) > len(layers) and all(each.grad is None for each in others)
    reached = [up is not None and bool(up.any()) for up in ups]
    assert sum(reached) >= len(reached) - 2, layers.keys()
    after = model.tower.state_dict()
    assert set(after) == set(state) and all(torch.equal(after[key], state[key]) for key in state)
    assert torch.equal(model.encode_image(pixels).embedding, before)


def test_merged_is_what_was_learned_and_goes_away(model: TunableModel) -> None:
    pixels = _pixels(model)
    before = model.encode_image(pixels).embedding
    updates = random_updates(model.tower)
    with learning(model.tower, 2, seed=0) as layers, torch.no_grad():
        for name, layer in layers.items():
            layer.up.copy_(torch.from_numpy(updates[name].up) / layer.scale)
            layer.down.copy_(torch.from_numpy(updates[name].down))
        told = {name: layer.factors() for name, layer in layers.items()}
        wanted = model.encode_image(pixels).embedding
    assert not torch.equal(wanted, before)
    with merged(model.tower, told):
        np.testing.assert_allclose(
            to_numpy(model.encode_image(pixels).embedding), wanted, atol=1e-5
        )
    assert torch.equal(model.encode_image(pixels).embedding, before)


def test_files_of_factors(tmp_path: Path) -> None:
    updates = {"blocks.0.attn.qkv.weight": Factors(np.ones((6, 2), "f4"), np.ones((2, 3), "f4"))}
    path = tmp_path / "updates.safetensors"
    write_updates(path, updates)
    assert digest_of(read_updates(path)) == digest_of(updates)
    assert digest_of({}) != digest_of(updates)
    arrays = as_arrays(updates)
    arrays.pop(f"{PREFIX}blocks.0.attn.qkv.weight.down")
    with pytest.raises(ModelError, match=r"without its update\.blocks\.0\.attn\.qkv\.weight\.down"):
        from_arrays(arrays, path)


def test_refuses_models_and_updates_that_do_not_fit() -> None:
    with pytest.raises(
        UsageError, match=r"starter, dense CLIP, OVSegmentor and aligned models can"
    ):
        require_tunable(FakeModel(grouped=False))
    tower = torch.nn.Module()
    tower.attn = torch.nn.MultiheadAttention(4, 2)
    for name, shape in (("other", (4, 1)), ("attn.out_proj.weight", (5, 1))):
        wrong = {name: Factors(np.zeros(shape, "f4"), np.zeros((1, 4), "f4"))}
        with pytest.raises(ModelError, match=name):
            merge(tower, wrong)
    endless = Factors(np.full((4, 1), np.nan, "f4"), np.zeros((1, 4), "f4"))
    with pytest.raises(ModelError, match="not finite"):
        merge(tower, {"attn.out_proj.weight": endless})
