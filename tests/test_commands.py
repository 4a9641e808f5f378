"""Every command that a page prints runs, or is one that its program would take."""

import shutil
from itertools import pairwise
from pathlib import Path

import pytest

from ovseg_cli.__main__ import run
from tests.pages import (
    PAGES,
    NotUnderstoodError,
    blocks,
    check,
    check_option,
    inline,
    options_within,
    split,
)

OF_OLD = {"moved.md"}  # names what is gone
LANGUAGES = {"sh", "python", "text", "bibtex"}
COMMANDS = [
    (block, words)
    for page in PAGES
    for block in blocks(page)
    if block.language == "sh"
    for words in block.commands
]
RUN = sorted({block.page for block, _ in COMMANDS if not block.needs})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_say_what_they_are(page: Path) -> None:
    """Or commands could hide in one."""
    assert {block.language for block in blocks(page)} <= LANGUAGES
    lines = page.read_text(encoding="utf-8").splitlines()
    assert [
        line for before, line in pairwise(lines) if not before and line.startswith("    ")
    ] == []


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_what_needs_nothing_runs(
    page: Path, chelsea: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for name in ("photo.jpg", "photos/a.png"):
        shutil.copy(chelsea, tmp_path / name)
    for block, words in COMMANDS:
        if block.page == page and not block.needs:
            assert words[0] == "ovseg", words
            assert run(words[1:]) == 0, words


def test_what_needs_something_would_be_taken() -> None:
    taken = [check(words) for _, words in COMMANDS]
    assert sum(taken) > 60


def taken(text: str) -> bool:
    """Whether a text is a command, and a right one."""
    return " " in text and any([check(words, whole=False) for words in split(text)])


def test_commands_and_options_in_sentences_are_real() -> None:
    texts = [text for page in PAGES if page.name not in OF_OLD for text in inline(page)]
    others = [text for text in texts if not taken(text)]
    assert len(texts) - len(others) > 60
    options = list(options_within(others))
    assert len(options) > 60
    for option in options:
        check_option(option)


@pytest.mark.parametrize(
    "command",
    [
        "ovseg segment photo.jpg --treshold 1",
        "ovseg sgement photo.jpg",
        "ovseg segment photo.jpg --min-area some",
        "ovseg eval voc",
        "ovseg eval compare A.json",
        "accelerate launch -m ovseg_cli pretrain cc4m --sett a=1",
        "ovseg pretrain cc5m",
        "ovseg pretrain cc4m --set data.shard=x",
        "ovseg build-dataset photos/ --set entities.tops=3",
        "python tools/measure_starter.py --date coco",
        "python -m tools.no_such_tool",
        "OVSEG_BENCH=1 pytest tests/benchmarks/test_no_such_benchmark.py",
        'pip install "ovseg[everything]"',
        "curl -F image=@photo.jpg -F class=cat http://127.0.0.1:8000/segment",
        "curl http://127.0.0.1:8000/segments",
        "sh setup.sh --cuda",
    ],
)
def test_a_command_that_would_fail_is_found(command: str) -> None:
    (words,) = split(command)
    with pytest.raises(NotUnderstoodError):
        check(words)


def test_an_option_that_there_is_not_is_found() -> None:
    assert list(options_within(["--polygons 1", "-o FOLDER --format", "a--b"])) == [
        *("--polygons", "--format")
    ]
    with pytest.raises(NotUnderstoodError):
        check_option("--treshold")
