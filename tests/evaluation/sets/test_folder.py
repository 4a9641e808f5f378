"""Folders of one's own, in the forms that CamVid comes in."""

import struct
from pathlib import Path
from zlib import compress, crc32

import numpy as np
import pytest
from PIL import Image

from ovseg.errors import DataError, UsageError
from ovseg.evaluation.sets.catalogue import open_set
from ovseg.evaluation.sets.stored_values import StoredValues
from tests.evaluation.sets import tiny


def test_folder_by_index(tmp_path: Path) -> None:
    tiny.photo(tmp_path / "images/a.png")
    tiny.index_png(tmp_path / "labels/a.png", np.array([[0, 1], [2, 255]]))
    tiny.text(tmp_path / "classes.txt", "background\ncat; kitten\ndog  # good ones\n")
    own = open_set("folder", tmp_path)
    assert own.classes == ("background", "cat", "dog")
    assert own.words.synonyms == (("cat", "kitten"), ("dog",))
    assert own.read_labels(own.samples[0]).tolist() == [[0, 1], [2, 255]]


def test_folder_of_masks_with_one_bit_a_pixel(tmp_path: Path) -> None:
    tiny.photo(tmp_path / "images/a.png")
    (tmp_path / "labels").mkdir()
    Image.fromarray(np.array([[False, True], [True, True]])).save(tmp_path / "labels/a.png")
    tiny.text(tmp_path / "classes.txt", "background\ncat\n")
    own = open_set("folder", tmp_path)
    assert own.read_labels(own.samples[0]).tolist() == [[0, 1], [1, 1]]


def test_folder_without_background_and_with_a_void_class(tmp_path: Path) -> None:
    """The CamVid of SegNet's authors: split folders, the last class void."""
    for split in ("train", "test"):
        tiny.photo(tmp_path / split / "0001.png")
        tiny.index_png(tmp_path / f"{split}annot/0001.png", np.array([[0, 1], [2, 1]]))
    tiny.text(tmp_path / "classes.txt", "sky\nbuilding\nvoid\n")
    own = open_set("folder", tmp_path, "test")
    assert own.classes == ("sky", "building")
    assert own.samples[0].image == tmp_path / "test/0001.png"
    assert own.read_labels(own.samples[0]).tolist() == [[0, 1], [255, 1]]
    with pytest.raises(DataError, match=r"images/ .or choose --split test or train. is missing"):
        open_set("folder", tmp_path)


def test_folder_by_colour(tmp_path: Path) -> None:
    """The CamVid of Cambridge: colour-coded labels whose names end in _L, void in the middle."""
    tiny.photo(tmp_path / "701_StillsRaw_full/0001.png")
    colours = np.array([[64, 128, 64], [0, 0, 0], [192, 0, 128]])
    packed = colours @ [1, 256, 65536]
    tiny.colour_png(tmp_path / "LabeledApproved_full/0001_L.png", packed[[[0, 1], [2, 2]]])
    tiny.text(
        tmp_path / "label_colors.txt", "64 128 64\tAnimal\n0 0 0\t\tVoid\n192 0 128\tArchway\n"
    )
    own = open_set("folder", tmp_path)
    assert own.classes == ("Animal", "Archway")
    assert own.read_labels(own.samples[0]).tolist() == [[0, 255], [1, 1]]
    tiny.colour_png(tmp_path / "LabeledApproved_full/0001_L.png", np.array([[0x030201]]))
    with pytest.raises(DataError, match=r"colour 1 2 3 is not in label_colors\.txt"):
        own.read_labels(own.samples[0])


def test_folder_with_a_list_of_names(tmp_path: Path) -> None:
    """The CamVid of fast.ai: one folder of images, labels that end in _P, valid.txt, codes.txt."""
    for name in ("a", "b"):
        tiny.photo(tmp_path / f"images/{name}.png")
        tiny.index_png(tmp_path / f"labels/{name}_P.png", np.zeros((2, 2)))
    tiny.text(tmp_path / "valid.txt", "b.png\n")
    tiny.text(tmp_path / "codes.txt", "Animal\nArchway\n")
    assert [s.name for s in open_set("folder", tmp_path, "valid").samples] == ["b"]
    assert [s.name for s in open_set("folder", tmp_path).samples] == ["a", "b"]


def test_folder_faults(tmp_path: Path) -> None:
    tiny.photo(tmp_path / "images/a.png")
    with pytest.raises(DataError, match=r"classes\.txt is missing"):
        open_set("folder", tmp_path)
    tiny.text(tmp_path / "classes.txt", "1 2 3 cat\ndog\n")
    with pytest.raises(DataError, match=r"some lines begin with a colour"):
        open_set("folder", tmp_path)
    tiny.text(tmp_path / "classes.txt", "cat\ndog\n")
    with pytest.raises(DataError, match=r"labels/ is missing"):
        open_set("folder", tmp_path)
    (tmp_path / "labels").mkdir()
    with pytest.raises(DataError, match=r"labels/a\.png is missing"):
        open_set("folder", tmp_path)
    tiny.index_png(tmp_path / "labels/a.png", np.array([[7]]))
    own = open_set("folder", tmp_path)
    with pytest.raises(DataError, match=r"label 7 has no line in classes\.txt, which names 2"):
        own.read_labels(own.samples[0])


def test_more_classes_than_labels_can_tell_apart(tmp_path: Path) -> None:
    tiny.photo(tmp_path / "images/a.png")
    tiny.index_png(tmp_path / "labels/a.png", np.zeros((8, 10)))
    tiny.text(tmp_path / "classes.txt", "\n".join(f"class {index}" for index in range(65_001)))
    with pytest.raises(DataError, match="65001 classes; at most 65,000"):
        open_set("folder", tmp_path)


def test_a_list_names_whole_files_and_what_it_names_in_vain_is_kept(tmp_path: Path) -> None:
    for name in ("a", "b c", "d.e", "other"):
        tiny.photo(tmp_path / f"images/{name}.png")
        tiny.index_png(tmp_path / f"labels/{name}.png", np.zeros((8, 10)))
    tiny.text(tmp_path / "classes.txt", "background\ncat\n")
    for lines in ("a\nb c\nd.e\nmissing\n", "a.jpg 1\n/x/b c.png\nimages/d.e.png\nmissing\n"):
        tiny.text(tmp_path / "val.txt", lines)
        own = open_set("folder", tmp_path, "val")
        assert [sample.name for sample in own.samples] == ["a", "b c", "d.e"]
        assert own.absent == ("missing",)
    tiny.text(tmp_path / "val.txt", "missing\n")
    with pytest.raises(DataError, match=r"val\.txt: none of its 1 lines names an image"):
        open_set("folder", tmp_path, "val")
    with pytest.raises(UsageError, match=r"there is no split nosuch.*choose --split val"):
        open_set("folder", tmp_path, "nosuch")


def test_two_images_that_differ_in_suffix_alone_are_two(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "b.png"):
        tiny.photo(tmp_path / f"images/{name}")
    for name in ("a", "b"):
        tiny.index_png(tmp_path / f"labels/{name}.png", np.zeros((8, 10)))
    tiny.text(tmp_path / "classes.txt", "cat\n")
    names = [sample.name for sample in open_set("folder", tmp_path).samples]
    assert names == ["a.jpg", "a.png", "b.png"]


def grey_png(path: Path, bits: int, values: list[list[int]]) -> None:
    """A grey PNG of fewer than eight bits a pixel, which Pillow cannot write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc32(kind + data))

    rows = b""
    for row in values:
        text = "".join(f"{value:0{bits}b}" for value in row)
        text += "0" * (-len(text) % 8)
        rows += b"\0" + int(text, 2).to_bytes(len(text) // 8, "big")
    header = struct.pack(">IIBBBBB", len(values[0]), len(values), bits, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", compress(rows)), chunk(b"IEND", b"")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_labels_of_few_bits_are_read_as_stored(tmp_path: Path, bits: int) -> None:
    values = [[0, 1], [(1 << bits) - 1, 0]]
    tiny.photo(tmp_path / "images/a.png")
    grey_png(tmp_path / "labels/a.png", bits, values)
    tiny.text(tmp_path / "classes.txt", "\n".join(["background", *"abcdefghijklmno"]))
    own = open_set("folder", tmp_path)
    assert own.read_labels(own.samples[0]).tolist() == values


def masks(root: Path, values: list[list[int]], classes: str = "background\ncat\n") -> Path:
    tiny.photo(root / "images/a.png")
    tiny.index_png(root / "labels/a.png", np.array(values))
    tiny.text(root / "classes.txt", classes)
    return root


def test_masks_of_0_and_255_are_told_and_mapped(tmp_path: Path) -> None:
    root = masks(tmp_path, [[0, 255], [255, 0]])
    with pytest.raises(DataError, match=r"labels/a\.png: holds 0 and 255 alone, and 255 means ign"):
        open_set("folder", root)
    for given in ({255: 1}, "255=1", " 255 = 1 ,"):
        own = open_set("folder", root, values=StoredValues.of(None, given))
        assert own.read_labels(own.samples[0]).tolist() == [[0, 1], [1, 0]]
        assert own.labels_from == "labels, classes.txt, label_map 255=1"
    own = open_set("folder", root, values=StoredValues.of(255, None))
    assert own.read_labels(own.samples[0]).tolist() == [[0, 255], [255, 0]]
    own = open_set("folder", root, values=StoredValues.of("0", "255=1"))
    assert own.read_labels(own.samples[0]).tolist() == [[255, 1], [1, 255]]
    own = open_set("folder", root, values=StoredValues.of("none", None))
    with pytest.raises(DataError, match=r"label 255 has no line in classes\.txt"):
        own.read_labels(own.samples[0])


def test_values_are_mapped_by_the_lines_of_the_class_file(tmp_path: Path) -> None:
    root = masks(tmp_path, [[0, 9], [7, 255]], "sky\nvoid\ncar\n")
    own = open_set("folder", root, values=StoredValues.of(None, "9=2,7=ignore"))
    assert own.read_labels(own.samples[0]).tolist() == [[0, 1], [255, 255]]


@pytest.mark.parametrize(
    ("ignore_label", "label_map", "message"),
    [
        ("x", None, "ignore_label is 'x': give a value, or none"),
        (-1, None, "ignore_label is -1"),
        (None, "255", "label_map has '255': give pairs such as 255=1,7=ignore"),
        (None, "255=cat", "label_map has '255=cat'"),
        (None, {255: 70000}, "label_map has 255: 70000"),
        (None, {255: 2}, "label_map names class 2: .*classes.txt has 2, from 0"),
    ],
)
def test_values_that_make_no_sense(tmp_path: Path, ignore_label, label_map, message: str) -> None:
    root = masks(tmp_path, [[0, 255]])
    with pytest.raises(UsageError, match=message):
        open_set("folder", root, values=StoredValues.of(ignore_label, label_map))
    with pytest.raises(UsageError, match="are for the set folder"):
        open_set("voc", root, values=StoredValues.of(255, None))
