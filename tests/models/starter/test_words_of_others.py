"""Tables of words from a folder that anyone may have made."""

import gzip
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from ovseg.errors import ModelError
from ovseg.models.starter.words import VECTORS, WordTable

OWN = json.loads(gzip.decompress((files("ovseg.models.starter") / "words.json.gz").read_bytes()))


def table(folder: Path, content: Any) -> WordTable:
    data = content if isinstance(content, bytes) else gzip.compress(json.dumps(content).encode())
    (folder / "words.json.gz").write_bytes(data)
    return WordTable(folder)


def test_our_own_are_taken_from_a_folder(tmp_path: Path) -> None:
    assert table(tmp_path, OWN).weights("cat").sum() == WordTable().weights("cat").sum()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        gzip.compress(b"{}"),
        gzip.compress(b"[1]"),
        gzip.compress(b"[" * 5000),
        gzip.compress(json.dumps(OWN).encode())[:-20],
        gzip.compress(b'{"a": "' + b"x" * (40 << 20) + b'"}'),  # 40 kB on disk
    ],
    ids=("empty", "garbage", "object", "list", "deep", "cut", "bomb"),
)
def test_garbage_and_bombs_are_one_sentence(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ModelError):
        table(tmp_path, content).weights("cat")


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": 3},
        {"classes": []},
        {"words": {"cat": []}},
        {"words": {"cat": [["nowhere", 1]]}},
        {"words": {"cat": [["x", "many"]]}, "senses": {"x": [0]}},
        {"senses": {"x": [99_999]}, "words": {"cat": [["x", 1]]}},
        {"senses": {"x": [-1]}, "words": {"cat": [["x", 1]]}},
        {"groundings": {"cat": [[5_000, 1.0]]}},
        {"groundings": {"cat": [[1, 1e308]]}},
        {"singular": {"cats": 3}},
    ],
)
def test_tables_that_do_not_fit_are_one_sentence(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="holds other tables than words"):
        table(tmp_path, OWN | changes).weights("cat")


def test_tables_of_older_exports_have_no_vectors(tmp_path: Path) -> None:
    words = table(tmp_path, OWN)
    assert (words.captions, words.width) == (0, len(words.classes))
    assert (words.embedding("cat") == words.weights("cat")).all()
    assert words.resolve("sky") is None


@pytest.mark.parametrize(
    "vectors", [np.zeros((5, 4), np.float32), np.full((9, 2), np.nan, np.float32)]
)
def test_vectors_that_do_not_fit_are_one_sentence(tmp_path: Path, vectors: np.ndarray) -> None:
    save_file({"vectors": vectors}, tmp_path / VECTORS)
    with pytest.raises(ModelError, match="export the model again"):
        table(tmp_path, OWN).embedding("cat")


@pytest.mark.parametrize("trust", [np.ones(3), np.full(9, 1.5), np.full(9, np.nan)])
def test_trust_that_is_no_share_is_one_sentence(tmp_path: Path, trust: np.ndarray) -> None:
    vectors = np.zeros((9, 4), np.float32)
    save_file({"vectors": vectors, "trust": trust.astype(np.float32)}, tmp_path / VECTORS)
    with pytest.raises(ModelError, match="export the model again"):
        table(tmp_path, OWN).embedding("cat")


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"words\.json\.gz: cannot be read"):
        WordTable(tmp_path).weights("cat")
