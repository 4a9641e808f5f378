"""Bounded reading of JSON, TOML and text."""

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ovseg import documents
from ovseg.documents import Bounds, TooLongError
from ovseg.errors import DataError, ModelError, RecipeError

DEEP = 3_000


def test_what_is_sound_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('\ufeff{"a": [1, -2.5e3, null, "é\\ud83d\\ude00"]}', encoding="utf-8")
    assert documents.read_json(path) == {"a": [1, -2500.0, None, "é😀"]}
    path.write_bytes(b'\xef\xbb\xbfa = 1\n[b.c]\nd = "x"\n')
    assert documents.read_toml(path) == {"a": 1, "b": {"c": {"d": "x"}}}
    assert documents.read_text(path).startswith("a = 1")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"[" * DEEP + b"]" * DEEP, "nested"),
        (b"[" * 65 + b"]" * 65, "nested more than 64 deep"),
        (b"[" * 100_000 + b"]" * 100_000, "nested"),
        (b'{"a":' * DEEP + b"1" + b"}" * DEEP, "nested"),
        (b"1" * 5_000, "a number of 5000 digits"),
        (b'{"a": -' + b"1" * 41 + b"}", "digits"),
        (b'"\\ud800"', "half a character"),
        (b'{"\\udc00": 1}', "half a character"),
        (b"\xff\xfe[\x00]\x00", "not UTF-8"),
        (b'{"a": 1', "no JSON"),
        (b"", "no JSON"),
    ],
)
def test_json_that_is_none(content: bytes, told: str) -> None:
    with pytest.raises(DataError, match=f"^here: .*{told}"):
        documents.parse_json(content, "here")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"a = " + b"[" * DEEP, "nested too deeply"),
        (b"a = " + b"{a = " * DEEP + b"}" * DEEP, "nested too deeply"),
        (b"a = " + b"[" * 70 + b"]" * 70, "nested more than 64 deep"),
        (b"a = " + b"1" * 5_000, "no TOML"),
        (b"a = 0x" + b"f" * 5_000, "digits"),
        (b"a." * 300_000 + b"a = 1", "a key of more than 256 parts"),
        (b'"a".' * 300_000 + b"a = 1", "a key of more than 256 parts"),
        (b"[" + b"a." * 300_000 + b"a]", "a key of more than 256 parts"),
        (b"x = {" + b"a." * 300_000 + b"a = 1}", "a key of more than 256 parts"),
        (b'a = "\xff"', "not UTF-8"),
        (b"a = ", "no TOML"),
        (b"a = 2020-13-40", "no TOML"),
    ],
)
def test_toml_that_is_none(content: bytes, told: str) -> None:
    with pytest.raises(DataError, match=f"^here: .*{told}"):
        documents.parse_toml(content, "here")


def test_many_dots_in_texts_are_no_key() -> None:
    names = [f"a.{number}.tar" for number in range(2_000)]
    assert documents.parse_toml(f"names = {names}", "here") == {"names": names}


def test_the_reader_of_entries_may_judge_half_characters_itself() -> None:
    assert documents.parse_json(b'["\\ud800"]', "here", Bounds(halves=True)) == ["\ud800"]


def test_the_error_is_the_callers() -> None:
    with pytest.raises(ModelError, match="here: no JSON"):
        documents.parse_json(b"?", "here", error=ModelError)
    with pytest.raises(RecipeError) as caught:
        documents.parse_toml(b"?", "here", error=RecipeError)
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    ("content", "held"), [("[]", "a list"), ('"a"', "a text"), ("null", "null"), ("3", "a number")]
)
def test_an_object_is_asked_for(content: str, held: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(DataError, match=f"a.json: holds {held} where"):
        documents.read_object(path)


class _Endless(io.RawIOBase):
    """Counts what is taken of it."""

    taken = 0

    def read(self, size: int = -1) -> bytes:
        assert size >= 0
        self.taken += size
        return bytes(size)


def test_a_stream_is_read_up_to_its_bound() -> None:
    stream = _Endless()
    with pytest.raises(TooLongError, match="above 3 MiB"):
        documents.read_stream(stream, 3 << 20)
    assert stream.taken == (3 << 20) + 1
    assert documents.read_stream(io.BytesIO(b"abc"), 3) == b"abc"


def test_a_file_beyond_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"[" + b" " * 1000 + b"]")
    with pytest.raises(DataError, match="large: above 1,000 bytes"):
        documents.read_json(path, Bounds(size=1000))
    with pytest.raises(DataError, match="here: above 1,000 bytes"):
        documents.parse_json(path.read_bytes(), "here", Bounds(size=1000))


@pytest.mark.parametrize(
    "read", [documents.read_json, documents.read_toml, documents.read_text, documents.read_object]
)
def test_what_is_no_file(read: Callable[[Path], Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="absent: no such file"):
        read(tmp_path / "absent")
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path)
    with pytest.raises(DataError, match="null"):
        read(tmp_path / "a\0b")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="a pipe, not a file"):
        read(tmp_path / "pipe")


@dataclass(frozen=True)
class _Counts:
    rows: int
    dropped: dict[str, int]


def test_values_fit_a_type_or_the_error_says_what_does_not() -> None:
    value = {"rows": 3, "dropped": {"damaged": 1}, "of a later version": []}
    assert documents.fit(_Counts, value, "here") == _Counts(3, {"damaged": 1})
    for wrong, told in (
        ([], "here: it: "),
        ({"rows": 3}, "here: dropped: Field required"),
        ({"rows": None, "dropped": {}}, "here: rows: "),
        ({"rows": 1, "dropped": {"a": "x"}}, "here: dropped.a: "),
        ({"rows": float("inf"), "dropped": {}}, "here: rows: "),
    ):
        with pytest.raises(DataError, match=told):
            documents.fit(_Counts, wrong, "here")


def test_digits_are_those_that_make_a_number() -> None:
    assert documents.digits("007") == 7
    for text in ("²", "", "-1", "1.0", "1" * 19, "1_000", " 1", "١"):
        assert documents.digits(text) is None
