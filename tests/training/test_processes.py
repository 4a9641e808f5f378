"""Several processes compute what one computes on their batches put together."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ovseg.config.schema import OptimizerConfig
from ovseg.distributed import HostChannel, average_gradients, mean_over_processes
from ovseg.errors import OvsegError, PeerError, UsageError
from ovseg.models.ovsegmentor.network import OVSegmentor
from ovseg.training.batch_norm import synchronise_batch_norm
from ovseg.training.optim import Updater, build_optimizer
from ovseg.training.step import LossWeights, TrainingStep
from tests.training.processes import in_processes, save
from tests.training.tiny import rows_of, tiny_batch, tiny_model

ALL = LossWeights(mask=0.1, resolution=32)
PAIRS = 8


def exact(images: torch.Tensor) -> torch.Tensor:
    return (images.double() - 127.5) / 63.75


def one_step(model: OVSegmentor, parts: list, rank: int, world_size: int) -> dict:
    """Losses, averaged gradients and buffers after one step without its update."""
    momentum = tiny_model(seed=5).image_encoder
    step = TrainingStep(model, momentum, ALL, rank=rank, world_size=world_size, normalise=exact)
    result = step(parts)
    average_gradients([p for p in model.parameters() if p.requires_grad], world_size)
    found = {f"grad.{n}": p.grad for n, p in model.named_parameters() if p.grad is not None}
    found |= {f"buffer.{name}": buffer for name, buffer in model.named_buffers()}
    for name in ("total", "contrastive", "entity", "mask"):
        found[f"loss.{name}"] = mean_over_processes(getattr(result, name))
    return found


def child(rank: int, folder: Path, parts: int) -> None:
    model = tiny_model()
    synchronise_batch_norm(model)
    mine = rows_of(tiny_batch(PAIRS), slice(rank * PAIRS // 2, (rank + 1) * PAIRS // 2))
    size = PAIRS // 2 // parts
    batches = [rows_of(mine, slice(part * size, (part + 1) * size)) for part in range(parts)]
    save(folder / f"{rank}.safetensors", one_step(model, batches, rank, 2))


@pytest.mark.parametrize("parts", [1, 2])
def test_two_processes_equal_one(parts: int, tmp_path: Path) -> None:
    expected = one_step(tiny_model(), [tiny_batch(PAIRS)], 0, 1)
    in_processes(2, child, tmp_path, parts)
    for rank in range(2):
        found = load_file(tmp_path / f"{rank}.safetensors")
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(
                found[name],
                tensor.detach(),
                rtol=1e-7,
                atol=1e-10,
                msg=lambda m, n=name: f"{n} {m}",
            )


def bad_child(rank: int, folder: Path) -> None:
    model = tiny_model().float()
    synchronise_batch_norm(model)
    update = Updater(model, build_optimizer(model, OptimizerConfig()), 5.0, world_size=2)
    before = model.image_encoder.position.detach().clone()
    step = TrainingStep(model, None, LossWeights(), rank=rank, world_size=2)
    update.begin()
    losses = step([tiny_batch(4, seed=rank)])
    norm = update.apply(losses.total * (float("nan") if rank == 1 else 1.0), 1e-3)
    same = torch.equal(before, model.image_encoder.position)
    save(folder / f"{rank}.safetensors", {"norm": norm, "same": torch.tensor(same)})


def test_all_processes_skip_a_step_that_is_bad_in_one(tmp_path: Path) -> None:
    in_processes(2, bad_child, tmp_path)
    for rank in range(2):
        found = load_file(tmp_path / f"{rank}.safetensors")
        assert not found["norm"].isfinite() and found["same"]


def failing_child(rank: int, folder: Path) -> None:
    channel = HostChannel(2)
    assert channel.together(lambda: rank) == rank

    def fail() -> None:
        if rank == 1:
            raise UsageError("the second one cannot")

    with pytest.raises(OvsegError, match="the second one cannot") as caught:
        channel.together(fail)
    found = caught.value
    assert (type(found) is UsageError) == (rank == 1) and (type(found) is PeerError) == (rank == 0)
    assert found.shared and found.exit_code == 2
    save(folder / f"{rank}.safetensors", {"done": torch.ones(1)})


def test_what_fails_in_one_process_fails_in_all(tmp_path: Path) -> None:
    in_processes(2, failing_child, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
