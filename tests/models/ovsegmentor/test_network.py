"""The projector is a plain BatchNorm head, computed with more digits."""

import copy

import torch

from ovseg.models.ovsegmentor.network import Projector


def written_out(projector: Projector, rows: torch.Tensor) -> torch.Tensor:
    return projector.out(projector.norm(projector.hidden(rows)).relu())


def test_equals_linear_batchnorm_relu_linear_and_keeps_its_statistics() -> None:
    torch.manual_seed(0)
    ours = Projector(8, 32, 4).double()
    other = copy.deepcopy(ours)
    for _ in range(3):
        rows = torch.randn(6, 8).double() + 3
        torch.testing.assert_close(ours(rows), written_out(other, rows))
    torch.testing.assert_close(ours.norm.running_mean, other.norm.running_mean)
    torch.testing.assert_close(ours.norm.running_var, other.norm.running_var)
    ours.eval(), other.eval()
    torch.testing.assert_close(ours(rows), written_out(other, rows))


def test_gradients_are_the_same_after_two_calls() -> None:
    torch.manual_seed(0)
    ours = Projector(8, 32, 4).double()
    other = copy.deepcopy(ours)
    first, second = torch.randn(6, 8).double(), torch.randn(5, 8).double()
    (ours(first).square().sum() + ours(second).square().sum()).backward()
    (
        written_out(other, first).square().sum() + written_out(other, second).square().sum()
    ).backward()
    for (name, a), b in zip(ours.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)


def test_rows_close_to_each_other_keep_their_digits() -> None:
    torch.manual_seed(0)
    double = Projector(48, 256, 16).double()
    single = copy.deepcopy(double).float()
    rows = (torch.randn(1, 48) * 5 + torch.randn(6, 48) * 1e-2).double()
    exact = written_out(copy.deepcopy(double), rows.float().double())
    ours = (single(rows.float()) - exact).detach().abs().max()
    plain = (written_out(copy.deepcopy(single), rows.float()) - exact).detach().abs().max()
    assert float(ours) < float(plain) / 3


def test_leading_axes_are_rows() -> None:
    torch.manual_seed(0)
    projector = Projector(8, 32, 4)
    groups = torch.randn(2, 3, 8)
    flat = copy.deepcopy(projector)(groups.reshape(6, 8))
    torch.testing.assert_close(projector(groups), flat.reshape(2, 3, 4))


def test_compiles_as_one_graph_in_training() -> None:
    torch.manual_seed(0)
    plain = Projector(8, 32, 4)
    compiled = copy.deepcopy(plain)
    rows = torch.randn(6, 8)
    found = torch.compile(compiled, fullgraph=True, backend="aot_eager")(rows)
    torch.testing.assert_close(found, plain(rows))
    torch.testing.assert_close(compiled.norm.running_mean, plain.norm.running_mean)
