"""Label files and lists that are damaged or made to harm: one line, in little memory."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from ovseg.errors import DataError
from ovseg.evaluation.sets.base import read_names
from ovseg.evaluation.sets.catalogue import open_set
from ovseg.evaluation.sets.label_files import (
    look_up,
    lookup_table,
    read_colour_png,
    read_index_png,
    read_mat,
    remap,
)
from tests.evaluation.sets import tiny


def test_colours_are_packed(tmp_path: Path) -> None:
    ids = np.array([[0, 1, 256], [65536, (1 << 24) - 1, 70000]])
    tiny.colour_png(tmp_path / "a.png", ids)
    assert read_colour_png(tmp_path / "a.png").tolist() == ids.tolist()


def test_values_outside_a_table_are_told() -> None:
    table = lookup_table({0: 1}, 4)
    assert remap(np.array([[0, 3]]), table, "a").tolist() == [[1, 255]]
    for value in (-1, 4, -(1 << 62)):
        with pytest.raises(DataError, match=rf"a: value {value} is no label of this set"):
            remap(np.array([[0, value]]), table, "a")
    assert look_up(table, np.zeros((0, 3), np.int64)).shape == (0, 3)


@pytest.mark.parametrize("read", [read_index_png, read_colour_png])
def test_pictures_of_too_many_pixels(tmp_path: Path, read: object) -> None:
    Image.new("1", (12_000, 9_000)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: not a readable PNG label file \(too many pixels"):
        read(tmp_path / "a.png")  # type: ignore[operator]


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(DataError, match="no such label file"):
        read_index_png(tmp_path / "a.png")


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((2, 2, 2)),
        np.array([[np.nan, 1.0]]),
        np.array([["a", "b"]]),
        np.array([[{"x": 1}]], object),
    ],
)
def test_arrays_that_are_no_label_map(tmp_path: Path, values: np.ndarray) -> None:
    savemat(tmp_path / "a.mat", {"LabelMap": values})
    with pytest.raises(DataError, match="LabelMap is no label map"):
        read_mat(tmp_path / "a.mat", "LabelMap")


@pytest.mark.parametrize("packed", [False, True])
def test_a_label_map(tmp_path: Path, packed: bool) -> None:
    values = np.arange(6, dtype=np.float64).reshape(2, 3)
    savemat(tmp_path / "a.mat", {"LabelMap": values, "b": "c"}, do_compression=packed)
    assert read_mat(tmp_path / "a.mat", "LabelMap").tolist() == values.tolist()


def test_a_mat_file_over_which_scipy_would_die(tmp_path: Path) -> None:
    """Seen with scipy 1.17: a kind of number that does not exist is looked up beyond a table."""
    savemat(tmp_path / "a.mat", {"LabelMap": np.ones((6, 8), np.int16)})
    content = (tmp_path / "a.mat").read_bytes()
    (tmp_path / "a.mat").write_bytes(content.replace(b"LabelMap\x03", b"LabelMap\x24"))
    with pytest.raises(DataError, match="an array of no kind of number"):
        read_mat(tmp_path / "a.mat", "LabelMap")


def test_a_mat_file_that_unpacks_to_much(tmp_path: Path) -> None:
    savemat(
        tmp_path / "a.mat", {"LabelMap": np.zeros((9_000, 9_000), np.uint8)}, do_compression=True
    )
    assert (tmp_path / "a.mat").stat().st_size < 100_000
    with pytest.raises(DataError, match="unpacks to 64 MiB or more"):
        read_mat(tmp_path / "a.mat", "LabelMap")


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a\0b", "C:\\x"])
def test_lists_name_files_of_the_set(tmp_path: Path, name: str) -> None:
    (tmp_path / "val.txt").write_text(f"a\n{name} 1\n")
    with pytest.raises(DataError, match="is not the name of an image of the set"):
        read_names(tmp_path / "val.txt")


@pytest.mark.parametrize("line", ["² ² ² cat", "300 0 0 cat", "1" * 5000 + " 1 1 cat", "0 0 cat"])
def test_words_that_look_like_colours_are_words(tmp_path: Path, line: str) -> None:
    tiny.photo(tmp_path / "images/a.png")
    tiny.index_png(tmp_path / "labels/a.png", np.array([[0, 1]]))
    tiny.text(tmp_path / "classes.txt", f"{line}\ndog\n")
    assert open_set("folder", tmp_path).classes == (line, "dog")


def test_class_files_that_are_none(tmp_path: Path) -> None:
    tiny.photo(tmp_path / "images/a.png")
    tiny.index_png(tmp_path / "labels/a.png", np.array([[0, 1]]))
    (tmp_path / "classes.txt").write_bytes(b"cat\n\xff\n")
    with pytest.raises(DataError, match=r"classes\.txt: not UTF-8"):
        open_set("folder", tmp_path)
    (tmp_path / "classes.txt").unlink()
    os.mkfifo(tmp_path / "classes.txt")
    with pytest.raises(DataError, match=r"classes\.txt: a pipe, not a file"):
        open_set("folder", tmp_path)
