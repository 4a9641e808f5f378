"""Class lists: parsing, files, synonyms, vocabularies, errors."""

from pathlib import Path
from typing import Any

import pytest

from ovseg.data.class_list import VOCABULARIES, ClassList
from ovseg.errors import DataError, UsageError


def test_commas_and_synonyms() -> None:
    classes = ClassList.parse(" cat , sofa;couch,dining  table")
    assert classes.names == ("cat", "sofa", "dining table")
    assert classes.phrases == ("cat", "sofa", "couch", "dining table")
    assert classes.phrase_labels == (1, 2, 2, 3)


def test_file_with_comments(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("\ufeffcat\n\n# pets\nsofa; couch # where they sleep\n", encoding="utf-8")
    assert ClassList.parse(f"@{path}").synonyms == (("cat",), ("sofa", "couch"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        (" , ;", "empty"),
        ("cat,dog,Cat", "more than once.*cat"),
        ("sofa;couch,couch", "couch"),
        ("cat,background", "label 0"),
    ],
)
def test_senseless_lists(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ClassList.parse(text)


def test_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        ClassList.parse(f"@{tmp_path / 'none.txt'}")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00cat")
    with pytest.raises(DataError, match="cannot be read"):
        ClassList.parse(f"@{tmp_path / 'binary.txt'}")


@pytest.mark.parametrize(
    ("name", "count"), [("voc", 20), ("context", 59), ("coco", 80), ("ade20k", 150)]
)
def test_vocabularies(name: str, count: int) -> None:
    assert name in VOCABULARIES
    assert len(ClassList.vocabulary(name).names) == count


def test_unknown_vocabulary() -> None:
    with pytest.raises(UsageError, match="voc, context"):
        ClassList.vocabulary("imagenet")


def test_lists_of_lists_and_dicts() -> None:
    wanted = (("cat",), ("sofa", "couch", "settee"))
    for entries in (
        ["cat", ["sofa", "couch", "settee"]],
        [["cat"], ("sofa", "couch; settee")],
        {"cat": [], "sofa": ["couch", "settee"]},
        {"cat": None, "sofa": "couch;settee"},
        {"cat": ["cat"], "sofa": ("sofa", "couch", "settee")},
    ):
        assert ClassList.of(entries).synonyms == wanted


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (3, "cannot be of type int"),
        ({"cat", "dog"}, "cannot be of type set: labels are numbered in their order"),
        (["cat", 3], "not by int: 3"),
        ([["cat", None]], "not by NoneType"),
        ({"cat": 3}, "synonyms of cat are strings, not int"),
        ({3: ["cat"]}, "not by int"),
        ([], "empty"),
        (["background"], "label 0"),
    ],
)
def test_other_types_are_refused_in_the_words_of_python(entries: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        ClassList.of(entries)
    assert "--" not in str(caught.value)
