"""Tokenizers that travel as text."""

from pathlib import Path

import pytest

pytest.importorskip("transformers")

from ovseg.config.load import load_recipe
from ovseg.errors import ModelError
from ovseg.models.tokenizer import (
    VOCABULARY_SIZE,
    TokenizerFiles,
    collect_tokenizer_files,
    fetch_tokenizer_files,
    restore_tokenizer,
)
from tests.models.tokenizers import write_tokenizer


def test_a_restored_tokenizer_reads_the_same(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path / "t")
    found = fetch_tokenizer_files(str(folder), "main")
    assert (found.name, found.revision) == (str(folder), "main")
    again = TokenizerFiles.from_json(found.to_json(), "x")
    assert again == found
    tokenizer = restore_tokenizer(again)
    assert tokenizer("a photo of cats [MASK]")["input_ids"] == [2, 5, 6, 7, 9, 10, 4, 3]
    assert (tokenizer.mask_token_id, tokenizer.pad_token_id) == (4, 0)


def test_code_beside_a_tokenizer_is_neither_kept_nor_run(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path / "t")
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass T: pass\n")
    config = folder / "tokenizer_config.json"
    text = config.read_text()
    config.write_text(text.replace("{", '{"auto_map": {"AutoTokenizer": [null, "evil.T"]},', 1))
    try:
        found = fetch_tokenizer_files(str(folder))
    except ModelError:
        found = None  # transformers may also refuse it altogether
    assert found is None or "evil.py" not in found.files
    assert not (tmp_path / "ran").exists()


def test_no_tokenizer_anywhere_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"--set model\.text\.tokenizer=FOLDER"):
        fetch_tokenizer_files(str(tmp_path))


def test_nonsense_cannot_be_restored() -> None:
    with pytest.raises(ModelError, match="cannot be restored"):
        restore_tokenizer(TokenizerFiles("x", "main", {"tokenizer_config.json": "{}"}))


def test_an_empty_text_is_no_tokenizer() -> None:
    assert TokenizerFiles.from_json("", "x") is None


def test_bytes_need_no_file() -> None:
    found = fetch_tokenizer_files("bytes")
    tokenizer = restore_tokenizer(found)
    assert len(tokenizer) == VOCABULARY_SIZE == load_recipe("smoke").model.text.vocab_size
    text = "a dog, é 🦓"
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == len(text.encode()) + 2
    assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id) == (2, 3)
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert tokenizer("[MASK]")["input_ids"] == [2, 4, 3]
    assert tokenizer.unk_token_id not in tokenizer("".join(map(chr, range(1, 256))))["input_ids"]


def test_a_slow_tokenizer_is_refused() -> None:
    class Slow:
        def save_pretrained(self, folder: str) -> None:
            (Path(folder) / "vocab.txt").write_text("a")

    with pytest.raises(ModelError, match="only fast tokenizers"):
        collect_tokenizer_files(Slow(), "x")


def test_offline_the_hub_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*arguments: object, **options: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setenv("OVSEG_OFFLINE", "1")
    monkeypatch.setattr("socket.create_connection", asked)
    monkeypatch.setattr("socket.getaddrinfo", asked)
    with pytest.raises(ModelError, match="tokenizer some-owner/some-name cannot be loaded"):
        fetch_tokenizer_files("some-owner/some-name")
