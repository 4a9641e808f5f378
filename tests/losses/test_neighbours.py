"""STRUCTURE's regulariser against its formula in a loop."""

import math

import pytest
import torch
from torch import Tensor

from ovseg.losses.neighbours import neighbourhood_loss


def naive(x: Tensor, z: Tensor, temperature: float, levels: int) -> float:
    def transitions(rows: Tensor) -> list[list[float]]:
        unit = [row / row.norm() for row in rows]
        mean = sum(unit[1:], unit[0]) / len(unit)
        centred = [row - mean for row in unit]
        table = []
        for a in centred:
            weights = [math.exp(float(a @ b) / temperature) for b in centred]
            table.append([w / sum(weights) for w in weights])
        return table

    def product(a: list, b: list) -> list:
        n = range(len(a))
        return [[sum(a[i][k] * b[k][j] for k in n) for j in n] for i in n]

    p0, q0 = transitions(x), transitions(z)
    p, q, total = p0, q0, 0.0
    for level in range(levels):
        if level:
            p, q = product(p, p0), product(q, q0)
        rows = []
        for a, b in zip(p, q, strict=True):
            m = [(u + v) / 2 for u, v in zip(a, b, strict=True)]
            kl = [sum(u * math.log(u / w) for u, w in zip(r, m, strict=True)) for r in (a, b)]
            rows.append(sum(kl) / 2)
        total += sum(rows) / len(rows)
    return total / levels


@pytest.mark.parametrize("levels", [1, 3])
def test_equals_the_formula(levels: int) -> None:
    torch.manual_seed(0)
    x, z = torch.randn(5, 6).double(), torch.randn(5, 3).double()
    found = neighbourhood_loss(x, z, 0.3, levels)
    assert float(found) == pytest.approx(naive(x, z, 0.3, levels), rel=1e-10)


def test_the_same_neighbourhoods_cost_nothing() -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 4)
    rotation = torch.linalg.qr(torch.randn(4, 4))[0]
    assert float(neighbourhood_loss(x, 3 * x @ rotation)) == pytest.approx(0, abs=1e-6)


def test_only_what_is_aligned_learns() -> None:
    x, z = torch.randn(4, 5, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    neighbourhood_loss(x, z).backward()
    assert x.grad is None and z.grad is not None and bool(z.grad.isfinite().all())
    assert float(z.grad.abs().max()) > 0
