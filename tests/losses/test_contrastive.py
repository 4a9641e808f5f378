"""Image-caption contrast against sums written out."""

import math
import socket
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ovseg.losses.contrastive import contrastive_loss


def naive(left: Tensor, right: Tensor, scale: float) -> float:
    """Both directions, row by row, with Python's own arithmetic."""
    unit = [[x / row.norm() for row in side for x in [row]] for side in (left, right)]
    total = 0.0
    for a, b in ((unit[0], unit[1]), (unit[1], unit[0])):
        for i, row in enumerate(a):
            logits = [scale * float(row @ other) for other in b]
            total += math.log(sum(math.exp(x) for x in logits)) - logits[i]
    return total / (2 * len(left))


def test_two_orthogonal_pairs_by_hand() -> None:
    # Cosines [[1, 0], [0, 1]] at scale 2: each row is -log(e^2 / (e^2 + 1)).
    loss = contrastive_loss(torch.eye(2) * 3, torch.eye(2) * 5, torch.tensor(2.0))
    assert float(loss) == pytest.approx(math.log(1 + math.exp(-2)), rel=1e-6)


def test_equals_a_naive_loop() -> None:
    torch.manual_seed(0)
    left, right = torch.randn(5, 7).double(), torch.randn(5, 7).double()
    loss = contrastive_loss(left, right, torch.tensor(3.0))
    assert float(loss) == pytest.approx(naive(left, right, 3.0), rel=1e-12)


def test_rows_that_do_not_count_change_nothing() -> None:
    torch.manual_seed(0)
    left, right = torch.randn(5, 7).double(), torch.randn(5, 7).double()
    valid = torch.tensor([True, False, True, True, False])
    loss = contrastive_loss(left, right, torch.tensor(3.0), valid)
    assert float(loss) == pytest.approx(naive(left[valid], right[valid], 3.0), rel=1e-12)


def test_no_row_that_counts_is_zero_with_finite_gradients() -> None:
    left = torch.randn(3, 4, requires_grad=True)
    loss = contrastive_loss(
        left, torch.randn(3, 4), torch.tensor(3.0), torch.zeros(3, dtype=torch.bool)
    )
    loss.backward()
    assert float(loss.detach()) == 0
    assert left.grad is not None and float(left.grad.abs().max()) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    left, right = torch.randn(64, 16).to(dtype), torch.randn(64, 16).to(dtype)
    loss = contrastive_loss(left, right, torch.tensor(100.0))
    assert loss.dtype == torch.float32
    single = contrastive_loss(left.float(), right.float(), torch.tensor(100.0))
    assert float(loss) == pytest.approx(float(single), rel=1e-6)


def test_an_embedding_of_zeros_is_no_nan() -> None:
    left = torch.zeros(2, 4, requires_grad=True)
    contrastive_loss(left, torch.randn(2, 4), torch.tensor(10.0)).backward()
    assert left.grad is not None and bool(left.grad.isfinite().all())


def test_rows_that_do_not_count_are_left_out() -> None:
    torch.manual_seed(0)
    answer, prompt = torch.randn(4, 6).double(), torch.randn(4, 6).double()
    masked = torch.tensor([True, True, False, True])
    loss = contrastive_loss(answer, prompt, torch.tensor(5.0), masked)
    assert float(loss) == pytest.approx(naive(answer[masked], prompt[masked], 5.0), rel=1e-12)


def _worker(rank: int, world_size: int, port: int, folder: str) -> None:
    from torch import distributed

    address = f"tcp://127.0.0.1:{port}"
    distributed.init_process_group(
        "gloo",
        init_method=address,
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=90),
    )
    given = torch.load(Path(folder) / "given.pt", weights_only=True)
    left = given["left"].chunk(world_size)[rank].clone().requires_grad_()
    right = given["right"].chunk(world_size)[rank].clone().requires_grad_()
    valid = given["valid"].chunk(world_size)[rank]
    loss = contrastive_loss(left, right, torch.tensor(4.0), valid, rank, world_size)
    loss.backward()
    found = {"loss": loss.detach(), "left": left.grad, "right": right.grad}
    torch.save(found, Path(folder) / f"found{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_together_have_the_loss_and_gradient_of_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    left, right = torch.randn(6, 5).double(), torch.randn(6, 5).double()
    valid = torch.tensor([True, True, False, True, True, True])
    torch.save({"left": left, "right": right, "valid": valid}, tmp_path / "given.pt")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_worker, (2, port, str(tmp_path)), nprocs=2)
    found = [torch.load(tmp_path / f"found{rank}.pt", weights_only=True) for rank in range(2)]

    left.requires_grad_()
    right.requires_grad_()
    whole = contrastive_loss(left, right, torch.tensor(4.0), valid)
    whole.backward()
    # Data parallel training averages over processes: losses and gradients alike.
    assert float(sum(part["loss"] for part in found) / 2) == pytest.approx(
        float(whole.detach()), rel=1e-12
    )
    for side, grad in (("left", left.grad), ("right", right.grad)):
        torch.testing.assert_close(torch.cat([part[side] for part in found]) / 2, grad)
