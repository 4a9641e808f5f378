"""Rows of vectors: written whole, read back, and made again when they are damaged."""

import json
from pathlib import Path

import numpy as np
import pytest

from ovseg.data.vectors import EncodedRow, VectorRows, is_complete, write_vectors
from ovseg.errors import DataError

WIDTHS = {"tokens": 3, "sentence": 2}


def rows_of(count: int, seed: int = 0) -> list[EncodedRow]:
    """Rows of unequal length, of which one could not be read."""
    random = np.random.default_rng(seed)
    rows = [
        EncodedRow(
            {"tokens": random.normal(size=(1 + row % 3, 3)), "sentence": random.normal(size=(1, 2))}
        )
        for row in range(count)
    ]
    rows[1] = EncodedRow({}, "damaged")
    return rows


@pytest.fixture
def written(tmp_path: Path) -> Path:
    rows = rows_of(7)
    write_vectors(tmp_path, 0, WIDTHS, rows[:4])
    write_vectors(tmp_path, 1, WIDTHS, rows[4:])
    return tmp_path


def test_rows_come_back_in_half_precision(written: Path) -> None:
    found = VectorRows(written, "tokens", 7, 4)
    assert len(found) == 7 and found.width == 3 and found.longest == 3
    for row, made in enumerate(rows_of(7)):
        expected = made.fields.get("tokens", np.empty((0, 3))).astype(np.float16)
        assert np.array_equal(found[row], expected)
    assert found.problems == {1: "damaged"}


def test_rows_are_padded_with_zeros(written: Path) -> None:
    values, lengths = VectorRows(written, "tokens", 7, 4).take([5, 1, 0])
    assert values.shape == (3, 3, 3) and lengths.tolist() == [3, 0, 1]
    assert not values[1].any() and not values[2, 1:].any() and values[2, 0].any()


def test_fewer_rows_are_the_beginning(written: Path) -> None:
    found = VectorRows(written, "sentence", 3, 4)
    assert len(found) == 3 and found.lengths.tolist() == [1, 0, 1]


def test_the_same_rows_give_the_same_bytes(written: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    write_vectors(again, 0, WIDTHS, rows_of(7)[:4])
    for name in ("000000.tokens.npy", "000000.sentence.npy", "000000_stats.json"):
        assert (again / name).read_bytes() == (written / name).read_bytes()


def test_damage_is_noticed(written: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OVSEG_CACHE", str(tmp_path / "notes"))
    assert is_complete(written, 0, 4) and is_complete(written, 1, 3)
    assert not is_complete(written, 1, 4)  # written when there were fewer rows
    assert not is_complete(written, 2, 4)
    path = written / "000000.tokens.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert not is_complete(written, 0, 4)
    (written / "000001.tokens.npy").unlink()
    assert not is_complete(written, 1, 3)


def test_a_shard_without_statistics_is_not_there(written: Path) -> None:
    (written / "000000_stats.json").unlink()  # killed before it was whole
    assert not is_complete(written, 0, 4)
    with pytest.raises(DataError, match="run again"):
        VectorRows(written, "tokens", 7, 4)


def test_what_does_not_fit_half_precision_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not finite in float16"):
        write_vectors(tmp_path, 0, {"tokens": 1}, [EncodedRow({"tokens": np.array([[1e6]])})])
    assert not list(tmp_path.glob("*_stats.json"))


@pytest.mark.parametrize(
    "change",
    [
        {"lengths": {"tokens": [1 << 40] * 4}},
        {"lengths": {"tokens": [-1, 0, 3, 3]}},
        {"lengths": {"../../tokens": [1] * 4}},
        {"lengths": {}},
        {"sha256": {"../../../etc/passwd": "0"}},
        {"rows": "x"},
    ],
)
def test_statistics_are_not_believed(
    written: Path, change: dict[str, object], own_cache: Path
) -> None:
    path = written / "000000_stats.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert not is_complete(written, 0, 4)
    if "passwd" not in path.read_text():
        with pytest.raises(DataError):
            VectorRows(written, "tokens", 7, 4)


@pytest.mark.parametrize("values", [np.zeros((4, 3)), np.zeros(12, np.float16), np.array(["a"])])
def test_arrays_of_another_kind_are_told(written: Path, values: np.ndarray) -> None:
    np.save(written / "000000.tokens.npy", values)
    with pytest.raises(DataError, match="holds something else"):
        VectorRows(written, "tokens", 7, 4)
