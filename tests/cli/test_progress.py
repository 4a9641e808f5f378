"""How far a command is, where there is no terminal."""

import pytest

from ovseg_cli.console import set_verbosity
from ovseg_cli.progress import Lines, progress


def test_a_line_every_ten_seconds() -> None:
    now = 0.0
    said: list[str] = []
    bar = Lines("segmenting", 1000, said.append, lambda: now)
    for second in range(1, 26):
        now = float(second)
        bar.advance(4)
    assert said == [
        "segmenting: 40 of 1,000, 4 a second, 4 min left",
        "segmenting: 80 of 1,000, 4 a second, 4 min left",
    ]


def test_steps_of_unknown_length_are_named() -> None:
    now = 0.0
    said: list[str] = []
    bar = Lines("starting", None, said.append, lambda: now)
    now = 11.0
    bar.update("matching", 12345, None)
    now = 22.0
    bar.update("fetching", 0, 10)
    assert said == ["matching: 12,345", "fetching: 0 of 10"]


def test_a_pipe_gets_lines_and_quiet_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ovseg_cli.progress.EVERY", 0.0)
    with progress("working", 3) as bar:
        bar.advance()
    assert capsys.readouterr().err.startswith("ovseg: working: 1 of 3")
    with progress("working", 3, shown=False) as bar:
        bar.advance()
    set_verbosity(-1)
    with progress("working", 3) as bar:
        bar.advance()
    set_verbosity(0)
    assert capsys.readouterr().err == ""


def test_a_step_that_begins_midway_has_the_pace_of_what_it_does() -> None:
    said: list[str] = []
    now = 0.0
    bar = Lines("reading", 7, said.append, lambda: now)
    now = 20.0
    bar.update("teaching", 4, 8)
    now = 30.0
    bar.update("teaching", 6, 8)
    assert said == ["teaching: 4 of 8", "teaching: 6 of 8, 0.2 a second, 10 s left"]
