"""The training step: parts and processes change nothing; what is off stays off."""

import math

import pytest
import torch
from torch import Tensor, nn

from ovseg.config.schema import OptimizerConfig
from ovseg.models.ovsegmentor.image_encoder import ImageEncoder
from ovseg.models.ovsegmentor.network import OVSegmentor
from ovseg.training.optim import MomentumEncoder, Updater, build_optimizer
from ovseg.training.step import LossWeights, StepResult, TrainingStep, normalised
from tests.training.tiny import rows_of, tiny_batch, tiny_model

ALL = LossWeights(mask=0.1, resolution=32)


def step_of(
    model: OVSegmentor, weights: LossWeights, momentum: ImageEncoder | None = None
) -> TrainingStep:
    """With images in double precision too, so that differences are the code's and not rounding."""
    return TrainingStep(
        model, momentum, weights, normalise=lambda images: normalised(images).double()
    )


def gradients(model: OVSegmentor) -> dict[str, Tensor]:
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def run_step(model: OVSegmentor, parts: list, weights: LossWeights = ALL) -> StepResult:
    # A momentum encoder equal to the model's would make masks match perfectly.
    momentum = tiny_model(seed=5).image_encoder
    return step_of(model, weights, momentum)(parts)


@pytest.mark.parametrize("binding", ["released", "slot"])
@pytest.mark.parametrize("partners", ["in-batch", "exact"])
def test_a_batch_in_parts_equals_the_whole_batch(binding: str, partners: str) -> None:
    batch = tiny_batch(12, partners=partners)
    whole, parted = tiny_model(binding=binding), tiny_model(binding=binding)
    momentum = tiny_model(seed=5, binding=binding).image_encoder
    expected = step_of(whole, ALL, momentum)([batch])
    parts = [rows_of(batch, slice(start, start + 4)) for start in (0, 4, 8)]
    found = step_of(parted, ALL, momentum)(parts)
    assert torch.equal(found.assignment, expected.assignment[8:])  # the last part's
    for name in ("total", "contrastive", "entity", "mask"):
        assert getattr(found, name).item() == pytest.approx(getattr(expected, name).item(), 1e-10)
    assert expected.mask > 0
    assert gradients(parted).keys() == gradients(whole).keys()
    for name, gradient in gradients(whole).items():
        torch.testing.assert_close(gradients(parted)[name], gradient, rtol=1e-7, atol=1e-10)
    for name, buffer in whole.named_buffers():
        torch.testing.assert_close(dict(parted.named_buffers())[name], buffer)


def test_both_passes_draw_the_same_noise() -> None:
    """With dropout and Gumbel noise on, the gradient is that of the features that were cached."""
    batch = tiny_batch(8)
    parts = [rows_of(batch, slice(0, 4)), rows_of(batch, slice(4, 8))]
    model = tiny_model(noise=True)
    step = step_of(model, LossWeights())
    seen: list[Tensor] = []
    encode = step._encode

    def record(part):  # type: ignore[no-untyped-def]
        encoded = encode(part)
        seen.append(encoded.features.groups.detach())
        return encoded

    step._encode = record  # type: ignore[method-assign]
    step(parts)
    assert torch.equal(seen[0], seen[2]) and torch.equal(seen[1], seen[3])
    assert not torch.equal(seen[0], seen[1])


def test_total_is_the_weighted_sum() -> None:
    losses = run_step(tiny_model(), [tiny_batch(6)], LossWeights(0.5, 2.0, 0.1, resolution=32))
    expected = 0.5 * losses.contrastive + 2 * losses.entity + 0.1 * losses.mask
    assert losses.total.item() == pytest.approx(expected.item())


def test_the_mask_loss_does_not_depend_on_how_many_images_share_a_step() -> None:
    """The same pairs twice have twice the sum and the same loss."""
    batch = tiny_batch(4)
    one = run_step(tiny_model(), [batch], LossWeights(0, 0, 1, resolution=32))
    two = run_step(tiny_model(), [batch, batch], LossWeights(0, 0, 1, resolution=32))
    assert one.mask.item() == pytest.approx(two.mask.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("weights", "untouched"),
    [
        (LossWeights(entity=0), "entity_decoder"),
        (LossWeights(entity=0), "bridge_projector"),
        (LossWeights(contrastive=0, entity=0, mask=0.1, resolution=32), "text_encoder"),
    ],
)
def test_a_loss_that_is_off_trains_nothing(weights: LossWeights, untouched: str) -> None:
    model = tiny_model()
    run_step(model, [tiny_batch(4)], weights)
    assert gradients(model)
    assert not [name for name in gradients(model) if name.startswith(untouched)]


def test_rows_that_do_not_count_change_no_loss() -> None:
    """What stands in the row of an unreadable sample is neither target nor negative."""
    batch = tiny_batch(6)
    batch.valid[:] = True
    batch.valid[3] = False
    model = tiny_model().eval()  # BatchNorm of training couples all rows
    other = tiny_batch(6)
    other.valid[:] = batch.valid
    other.caption.ids[3] = 7
    losses = [step_of(model, LossWeights(entity=0))([b]).total for b in (batch, other)]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-12)


def updater(model: OVSegmentor, clip: float = 5.0) -> Updater:
    return Updater(model, build_optimizer(model, OptimizerConfig()), clip)


def test_weight_decay_leaves_one_dimensional_tensors_alone() -> None:
    model = tiny_model()
    groups = build_optimizer(model, OptimizerConfig()).param_groups
    by_decay = {group["weight_decay"]: group["params"] for group in groups}
    assert set(by_decay) == {0.05, 0.0}
    plain = {id(p) for p in by_decay[0.0]}
    for name, parameter in model.named_parameters():
        assert (id(parameter) in plain) == (name.endswith("bias") or parameter.ndim < 2)


def test_a_tower_has_a_rate_of_its_own() -> None:
    """Adam's first step is as long as the rate, whatever the gradient."""
    model = nn.Module()
    model.image_encoder = nn.Module()
    model.image_encoder.tower = nn.Linear(3, 3, bias=False)
    model.image_encoder.head = nn.Linear(3, 3, bias=False)
    tower, head = model.image_encoder.tower.weight, model.image_encoder.head.weight
    start = [tower.detach().clone(), head.detach().clone()]
    config = OptimizerConfig(tower_rate=0.1, weight_decay=0.0)
    update = Updater(model, build_optimizer(model, config), 0.0)
    update.begin()
    loss = tower.sum() + head.sum()
    loss.backward()
    update.apply(loss, 1e-2)
    torch.testing.assert_close(start[0] - tower, torch.full((3, 3), 1e-3))
    torch.testing.assert_close(start[1] - head, torch.full((3, 3), 1e-2))


@pytest.mark.parametrize("bad", ["loss", "gradient"])
def test_a_step_that_is_not_finite_changes_nothing(bad: str) -> None:
    model = tiny_model()
    update = updater(model)
    step = step_of(model, LossWeights())
    for _ in range(2):  # so that the optimizer has moments to spoil
        update.begin()
        losses = step([tiny_batch(4)])
        assert update.apply(losses.total, 1e-3).isfinite()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    moments = [s["exp_avg"].clone() for s in update.optimizer.state.values()]
    counts = [s["step"].clone() for s in update.optimizer.state.values()]
    update.begin()
    losses = step([tiny_batch(4, seed=2)])
    total = losses.total
    if bad == "loss":
        total = total * math.nan
    else:
        model.image_encoder.position.grad[0, 0] = math.inf
    assert not update.apply(total, 1e-3).isfinite()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    states = list(update.optimizer.state.values())
    assert all(torch.equal(s["exp_avg"], m) for s, m in zip(states, moments, strict=True))
    assert all(torch.equal(s["step"], c) for s, c in zip(states, counts, strict=True))
    update.begin()
    assert update.apply(step([tiny_batch(4)]).total, 1e-3).isfinite()
    assert not torch.equal(model.image_encoder.position, before["image_encoder.position"])


def test_the_momentum_encoder_follows_by_its_share() -> None:
    online = tiny_model().image_encoder
    momentum = MomentumEncoder(online, 0.75)
    start = online.position.detach().clone()
    with torch.no_grad():
        online.position.add_(1)
    momentum.follow()
    torch.testing.assert_close(momentum.encoder.position, start + 0.25)
    assert not any(p.requires_grad for p in momentum.encoder.parameters())
