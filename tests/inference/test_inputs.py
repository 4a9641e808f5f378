"""Images as people hand them over, in Python."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ovseg.errors import DataError, UsageError
from ovseg.inference.inputs import to_pixels

PHOTO = Path(__file__).parents[2] / "examples/chelsea.png"


@pytest.fixture(scope="module")
def rgb() -> np.ndarray:
    return np.asarray(Image.open(PHOTO).convert("RGB"))


def test_files_in_every_form(rgb: np.ndarray) -> None:
    data = PHOTO.read_bytes()
    with PHOTO.open("rb") as opened:
        forms: list[Any] = [str(PHOTO), PHOTO, data, bytearray(data), memoryview(data), opened]
        forms += [io.BytesIO(data), Image.open(PHOTO)]
        assert all(np.array_equal(to_pixels(form), rgb) for form in forms)


def test_bytes_are_read_as_the_file_is(rgb: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(rgb).save(tmp_path / "a.jpg")
    from_bytes = to_pixels((tmp_path / "a.jpg").read_bytes())
    assert np.array_equal(from_bytes, to_pixels(tmp_path / "a.jpg"))


def test_arrays(rgb: np.ndarray) -> None:
    grey = rgb[..., 0]
    repeated = np.repeat(grey[..., None], 3, axis=2)
    assert np.array_equal(to_pixels(rgb), rgb)
    assert np.array_equal(to_pixels(grey), repeated)
    assert np.array_equal(to_pixels(grey[..., None]), repeated)
    assert np.array_equal(to_pixels(rgb.astype(np.float32) / 255), rgb)
    assert np.array_equal(to_pixels(rgb.astype(np.float64)), rgb)
    assert np.array_equal(to_pixels(rgb.astype(np.uint16) * 257), rgb)
    assert np.array_equal(to_pixels(rgb.astype(int)), rgb)
    alpha = np.zeros_like(rgb[..., :1])
    assert (to_pixels(np.dstack([rgb, alpha])) == 255).all()


def test_tensors(rgb: np.ndarray) -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(rgb.copy())
    first = tensor.permute(2, 0, 1)
    assert np.array_equal(to_pixels(tensor), rgb)
    assert np.array_equal(to_pixels(first), rgb)
    assert np.array_equal(to_pixels((first.float() / 255).requires_grad_()), rgb)
    assert to_pixels(first.bfloat16() / 255).shape == rgb.shape
    assert np.array_equal(to_pixels(first[:1])[..., 1], rgb[..., 0])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((3, 8, 9), np.uint8), r"uint8 \[3, 8, 9\] has its channels first.*transpose"),
        (np.zeros((2, 8, 9, 3), np.uint8), r"several images: give list\(array\)"),
        (np.zeros((8, 9, 2), np.uint8), "is no image"),
        (np.zeros((0, 9, 3), np.uint8), "is empty"),
        (np.zeros((8, 9), complex), "holds no brightness"),
        (np.zeros((8, 9), object), "holds no brightness"),
        (io.StringIO("text"), "mode 'rb'"),
        (3, "int is no image"),
        ("https://host/a.jpg", "URLs are not read"),
    ],
)
def test_what_is_no_image_is_refused_with_a_hint(image: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        to_pixels(image)


@pytest.mark.parametrize("data", [b"", b"<html>", PHOTO.read_bytes()[:5000]])
def test_damaged_bytes(data: bytes) -> None:
    for form in (data, io.BytesIO(data)):
        with pytest.raises(DataError, match="the image: "):
            to_pixels(form)


def test_a_damaged_file_that_pillow_has_opened(tmp_path: Path) -> None:
    data = PHOTO.read_bytes()
    (tmp_path / "a.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="damaged"):
        to_pixels(Image.open(tmp_path / "a.png"))
