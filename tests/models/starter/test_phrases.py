"""Any text: heads of phrases, tokens, and the text encoder of the starter."""

import gzip
import shutil
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from ovseg.errors import ModelError
from ovseg.models.interface import PartlyKnown
from ovseg.models.starter.heads import heads_of
from ovseg.models.starter.phrases import GRAPH, VOCABULARY, PhraseEncoder
from ovseg.models.starter.wordpiece import LONGEST_WORD, MOST_TOKENS, WordPieces
from ovseg.models.starter.words import TABLES, WordTable

FOLDER = Path(str(files("ovseg.models.starter")))


@pytest.fixture(scope="module")
def words() -> WordTable:
    return WordTable()


@pytest.fixture(scope="module")
def pieces() -> WordPieces:
    return PhraseEncoder(FOLDER).pieces


@pytest.mark.parametrize(
    ("phrase", "heads"),
    [
        ("red sports car", ["red sports car"]),
        ("a cat sitting on a couch", ["a cat sitting", "a cat"]),
        ("a man riding a horse", ["a man"]),
        ("a piece of pizza on a plate", ["pizza"]),
        ("bottle of wine", ["bottle"]),
        ("zebra crossing", ["zebra crossing"]),
        ("of", ["of"]),
        ("", [""]),
    ],
)
def test_the_head_says_what_it_is(phrase: str, heads: list[str]) -> None:
    assert [" ".join(head) for head in heads_of(phrase.split())] == heads


def test_tokens_are_those_of_the_package(pieces: WordPieces) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = gzip.decompress((FOLDER / VOCABULARY).read_bytes()).decode().split("\n")
    model = tokenizers.models.WordPiece(
        {token: place for place, token in enumerate(vocabulary)},
        unk_token="[UNK]",
        max_input_chars_per_word=LONGEST_WORD,
    )
    theirs = tokenizers.Tokenizer(model)
    theirs.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    first, last = (vocabulary.index(token) for token in ("[CLS]", "[SEP]"))
    for text in (
        "A cat sitting on a couch.", "red_bus it's 3.5$ don't", "Café Zürich 犬 dog\tä \x07", "",
        "x" * (LONGEST_WORD + 1), "naïve — “q” €5", "İstanbul ½ x² … ß", "unaffable " * 99,
    ):  # fmt: skip
        expected = theirs.encode(text, add_special_tokens=False).ids[: MOST_TOKENS - 2]
        assert pieces(text) == [first, *expected, last], text


def test_a_phrase_has_the_classes_of_its_head_and_what_captions_say_of_all(
    words: WordTable,
) -> None:
    classes, width = len(words.classes), words.captions
    bus, red, green = (words.embedding(text) for text in ("bus", "red bus", "green bus"))
    assert (red[:classes] == bus[:classes]).all() and (red[-2:] == 0).all()
    said = [each[classes + width : -3] for each in (bus, red, green)]
    trusted = [each[classes : classes + width - 1] for each in (bus, red, green)]
    trust = words.embedding("bus")[classes + width - 1]  # of the head, for all of the phrase
    assert all(np.allclose(few, trust * all_) for few, all_ in zip(trusted, said, strict=True))
    assert all(np.linalg.norm(each) == pytest.approx(1, abs=1e-2) for each in said)
    assert 0.3 < said[1] @ said[0] < 0.99 and said[1] @ said[2] < 0.99
    assert (words.embedding("a bus") == bus).all(), "articles say nothing"
    assert words.resolve("a cat sitting on a couch") == "cat"


def test_a_word_in_no_table_is_known_by_captions_alone(words: WordTable) -> None:
    assert words.resolve("drone") is None and not words.unknown(["drone"])
    found = words.embedding("drone")
    assert found[-2:].tolist() == [1, 0] and not found[: len(words.classes)].any()


@pytest.mark.parametrize("phrase", ["okapi", "Hund", "chien", "fire hydrant", "red fire hydrant"])
def test_rare_foreign_and_denied_words_stay_unknown(words: WordTable, phrase: str) -> None:
    assert [each.phrase for each in words.unknown([phrase])] == [phrase]
    assert not words.embedding(phrase).any()


def test_what_is_left_out_is_told(words: WordTable) -> None:
    assert words.partly_known(["red dog", "xyzzy dog"]) == [PartlyKnown("xyzzy dog", "dog")]


def test_a_folder_without_an_encoder_knows_its_words_only(tmp_path: Path) -> None:
    for name in set(TABLES) - {GRAPH, VOCABULARY}:
        shutil.copy(FOLDER / name, tmp_path)
    alone = WordTable(tmp_path)
    assert alone.partly_known(["red dog"]) == [PartlyKnown("red dog", "dog")]
    assert (alone.embedding("red dog") == alone.embedding("dog")).all()
    assert len(alone.unknown(["drone"])) == 1


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / GRAPH).write_bytes(b"no graph")
    shutil.copy(FOLDER / VOCABULARY, tmp_path)
    with pytest.raises(ModelError, match="no ONNX file"):
        PhraseEncoder(tmp_path)("red bus")
    for content in (b"", gzip.compress(b"\xff"), gzip.compress(b"[CLS]\n[SEP]")):
        (tmp_path / VOCABULARY).write_bytes(content)
        with pytest.raises(ModelError, match="cannot be read"):
            PhraseEncoder(tmp_path)("red bus")
