"""Both binding modules."""

import pytest
import torch
from torch.nn import functional

from ovseg.models.ovsegmentor.binding import ReleasedBinding, SlotBinding

B, T, G, N, D = 2, 6, 3, 10, 16


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(B, T, D).double(), torch.randn(B, N, D).double()


def released() -> ReleasedBinding:
    torch.manual_seed(1)
    return ReleasedBinding(D, heads=4, tokens=T, groups=G).double()


def slot(**changes: object) -> SlotBinding:
    torch.manual_seed(1)
    return SlotBinding(D, tokens=T, groups=G, **changes).double()  # type: ignore[arg-type]


def test_released_update_equals_a_loop_over_patches() -> None:
    binding = released().eval()
    tokens, patches = inputs()
    found = binding(tokens, patches)
    normed = binding.norm_patches(patches)
    queries = binding.cross(binding.mixer(binding.norm_tokens(tokens)), normed)
    for image in range(B):
        logits = binding.query(queries[image]) @ binding.key(normed[image]).T / D**0.5
        sums, counts = torch.zeros(G, D).double(), torch.zeros(G)
        for patch in range(N):
            winner = int(logits[:, patch].argmax())
            sums[winner] += binding.value(normed[image, patch])
            counts[winner] += 1
        updated = queries[image] + binding.out(sums / (counts[:, None] + 1))
        expected = updated + binding.mlp(binding.norm_mlp(updated))
        torch.testing.assert_close(found.groups[image], expected)
        torch.testing.assert_close(found.soft[image], logits.softmax(dim=0))


def test_released_is_hard_in_evaluation_and_the_soft_assignment_sums_to_one() -> None:
    found = released().eval()(*inputs())
    assert found.hard.unique().tolist() == [0, 1]
    assert torch.equal(found.hard.argmax(dim=1), found.soft.argmax(dim=1))
    torch.testing.assert_close(found.soft.sum(dim=1), torch.ones(B, N).double())
    assert found.query.shape == (B, G, D) and found.key.shape == (B, N, D)


def test_released_draws_noise_in_training_only() -> None:
    binding, (tokens, patches) = released(), inputs()
    drawn = {tuple(binding(tokens, patches).hard.flatten().tolist()) for _ in range(5)}
    assert len(drawn) > 1
    binding.eval()
    assert torch.equal(binding(tokens, patches).hard, binding(tokens, patches).hard)


def test_without_noise_training_is_straight_through() -> None:
    binding, (tokens, patches) = released(), inputs()
    binding.gumbel_noise = False
    found = binding(tokens, patches)
    one_hot = functional.one_hot(found.soft.argmax(dim=1), G).transpose(1, 2).double()
    torch.testing.assert_close(found.hard, one_hot)
    found.groups.sum().backward()
    assert float(binding.key.weight.grad.abs().max()) > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_noise_in_half_precision_is_finite(dtype: torch.dtype) -> None:
    binding = released().to(dtype)
    tokens, patches = (x.to(dtype) for x in inputs())
    for _ in range(20):
        assert bool(binding(tokens, patches).groups.isfinite().all())


def test_slot_attention_equals_the_algorithm_written_out() -> None:
    binding = slot(iterations=2)
    tokens, patches = inputs()
    found = binding(tokens, patches)
    normed = binding.norm_patches(patches)
    slots = binding.mixer(binding.norm_tokens(tokens))
    for _ in range(2):
        query = binding.query(binding.norm_slots(slots))
        logits = torch.einsum("bgd,bnd->bgn", query, binding.key(normed)) / D**0.5
        attention = logits.softmax(dim=1)
        weights = attention / attention.sum(dim=2, keepdim=True)
        updates = torch.einsum("bgn,bnd->bgd", weights, binding.value(normed))
        slots = torch.stack([binding.gru(updates[b], slots[b]) for b in range(B)])
        slots = slots + binding.mlp(binding.norm_mlp(slots))
    torch.testing.assert_close(found.groups, slots)
    torch.testing.assert_close(found.soft, attention)
    assert found.hard is found.soft


def test_slot_attention_is_the_same_in_training() -> None:
    binding = slot()
    trained = binding(*inputs()).groups
    torch.testing.assert_close(binding.eval()(*inputs()).groups, trained)


def test_iterations_and_gru_change_the_result() -> None:
    base = slot(iterations=1)(*inputs()).groups
    assert not torch.allclose(base, slot(iterations=3)(*inputs()).groups)
    assert not torch.allclose(base, slot(iterations=1, gru=False)(*inputs()).groups)


def test_a_slot_that_nothing_attends_to_stays_finite() -> None:
    binding = slot()
    with torch.no_grad():
        binding.query.weight.mul_(1e4)  # all attention goes to one slot per patch
    found = binding(*inputs())
    assert bool(found.groups.isfinite().all())
