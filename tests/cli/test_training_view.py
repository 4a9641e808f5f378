"""What a training run shows on a terminal and in a file."""

import io

import pytest
from rich.console import Console

from ovseg.training.log import LogLine
from ovseg_cli import training_view
from ovseg_cli.training_view import TrainingView

RECORD = LogLine(7, 0.5, 4.25, 3.0, 1.0, None, 14.0, 2.5, 1e-4, 90.0, 0.1, 0.4, 2**30, 0.8, 3.5, 2)
SHOWN = ("step 7", "loss 4.250", "mask -", "stall 10%", "MFU 40%", "groups 3.5", "skipped 2")


@pytest.mark.parametrize("terminal", [True, False])
def test_numbers_and_bar_fit_eighty_columns(
    terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=80, color_system=None)
    monkeypatch.setattr(training_view, "stderr", lambda: console)
    with TrainingView() as view:
        view.started(0, 20)
        view.stepped(7)
        view.logged(RECORD)
    shown = " ".join(text.getvalue().split())
    assert all(part in shown for part in SHOWN)
    assert ("7/20" in shown) == terminal
