"""Tokenizers of foreign files: what takes for ever, fills the memory or dies is one sentence."""

import json
from typing import Any

import pytest

pytest.importorskip("tokenizers")

from ovseg.errors import ModelError
from ovseg.models import trial
from ovseg.models.trial import try_tokenizer


def tokenizer(**changes: Any) -> str:
    """`tokenizer.json` of a few words."""
    values: dict[str, Any] = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": {"[UNK]": 0, "a": 1}, "unk_token": "[UNK]"},
    }
    return json.dumps(values | changes)


def split_by(pattern: str) -> dict[str, Any]:
    rule = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"}
    return {"pre_tokenizer": rule | {"invert": False}}


def doubled(times: int) -> dict[str, Any]:
    """A normaliser that makes two of every letter a, over and over."""
    twice = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
    return {"normalizer": {"type": "Sequence", "normalizers": [twice] * times}}


def test_an_honest_one_passes() -> None:
    try_tokenizer(tokenizer(), ["a photo of a cat", "", "é" * 1000], 77, "x")


def test_a_regular_expression_that_explodes() -> None:
    content = tokenizer(**split_by("(a+)+$|(a|aa)+$"))
    with pytest.raises(ModelError, match=r"x: (refused: its tokenizer takes too long|its token)"):
        try_tokenizer(content, ["a" * 60 + "!"], 77, "x")


def test_a_rule_that_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "SECONDS", 5.0)
    with pytest.raises(ModelError, match=r"x: "):
        try_tokenizer(tokenizer(**doubled(40)), ["a photo of a cat"], 77, "x")


def test_what_takes_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "SECONDS", 0.01)
    with pytest.raises(ModelError, match="x: refused: its tokenizer takes too long"):
        try_tokenizer(tokenizer(), ["a"], 77, "x")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": null}', "\ud800", "[" * 5000])
def test_what_is_no_tokenizer(content: str) -> None:
    with pytest.raises(ModelError, match="x: its tokenizer cannot be used: "):
        try_tokenizer(content, ["a"], 77, "x")
