"""Tables with several right answers, against sums written out."""

import math

import pytest
import torch
from torch import Tensor

from ovseg.losses.contrastive import contrastive_loss
from ovseg.losses.matching import matching_loss, sigmoid_loss


def naive(scores: Tensor, positive: Tensor, counted: Tensor, by_answer: bool = False) -> float:
    """Row by row and right answer by right answer."""

    def one_way(table: list, right: list, judged: list, alike: bool = False) -> float:
        rows = []
        for row in range(len(table)):
            places = range(len(table[row]))
            wrong = [table[row][t] for t in places if judged[row][t] and not right[row][t]]
            losses = []
            for t in places:
                if right[row][t]:
                    total = math.exp(table[row][t]) + sum(math.exp(x) for x in wrong)
                    losses.append(-math.log(math.exp(table[row][t]) / total))
            if losses:
                rows += losses if alike else [sum(losses) / len(losses)]
        return sum(rows) / len(rows)

    tables = (scores, positive, counted)
    there = one_way(*(table.tolist() for table in tables), by_answer)
    back = one_way(*(table.T.tolist() for table in tables))
    return (there + back) / 2


def table(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scores = 3 * torch.randn(5, 7, generator=generator).double()
    positive = torch.rand(5, 7, generator=generator) < 0.3
    counted = torch.rand(5, 7, generator=generator) < 0.8
    positive[2] = False  # a photo that nothing belongs to
    return scores, positive, counted


@pytest.mark.parametrize("seed", range(4))
def test_equals_a_naive_loop(seed: int) -> None:
    scores, positive, counted = table(seed)
    for by_answer in (False, True):
        found = matching_loss(scores, positive, counted, by_answer=by_answer)
        expected = naive(scores, positive, counted, by_answer)
        assert float(found) == pytest.approx(expected, rel=1e-12)


def test_one_right_answer_a_row_is_the_contrast() -> None:
    torch.manual_seed(0)
    left, right = torch.randn(6, 4).double(), torch.randn(6, 4).double()
    unit = [torch.nn.functional.normalize(side, dim=-1) for side in (left, right)]
    found = matching_loss(7 * unit[0] @ unit[1].T, torch.eye(6, dtype=torch.bool))
    expected = contrastive_loss(left, right, torch.tensor(7.0))
    assert float(found) == pytest.approx(float(expected), rel=1e-12)


def test_what_is_not_counted_has_no_gradient() -> None:
    scores, positive, counted = table()
    scores.requires_grad_()
    matching_loss(scores, positive, counted).backward()
    assert scores.grad is not None and bool(scores.grad.isfinite().all())
    assert float(scores.grad[~positive & ~counted].abs().sum()) == 0
    assert float(scores.grad[positive].sum()) < 0 < float(scores.grad[counted & ~positive].sum())


@pytest.mark.parametrize("right", [0, 1])
def test_rows_without_wrong_or_right_answers_are_no_nan(right: int) -> None:
    scores = torch.randn(3, 3, requires_grad=True)
    loss = matching_loss(scores, torch.full((3, 3), bool(right)))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    assert scores.grad is not None and bool(scores.grad.isfinite().all())


def test_sigmoid_equals_a_naive_loop() -> None:
    scores, positive, counted = table()
    total = 0.0
    for row in range(5):
        for column in range(7):
            logit = float(scores[row, column]) - 2.0
            if positive[row, column]:
                total += math.log(1 + math.exp(-logit))
            elif counted[row, column]:
                total += math.log(1 + math.exp(logit))
    found = sigmoid_loss(scores, positive, torch.tensor(-2.0), counted)
    assert float(found) == pytest.approx(total / 5, rel=1e-12)
