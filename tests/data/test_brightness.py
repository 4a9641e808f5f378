"""One picture in every type of number has one brightness."""

import io
import logging
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from ovseg.data.brightness import to_eight_bits
from ovseg.data.images import decode, read_image

PHOTO = Path(__file__).parents[2] / "examples/chelsea.png"
MEAN = 119.5


@pytest.fixture(scope="module")
def grey() -> np.ndarray:
    return np.asarray(Image.open(PHOTO).convert("L"))


def share(grey: np.ndarray) -> np.ndarray:
    return grey.astype(np.float32) / 255


def with_one(values: np.ndarray, number: float) -> np.ndarray:
    changed = values.copy()
    changed[0, 0] = number
    return changed


def of_bits(grey: np.ndarray, bits: int, kind: type = np.uint16) -> np.ndarray:
    return np.round(grey.astype(np.float64) / 255 * (2**bits - 1)).astype(kind)


def brightness(tmp_path: Path, values: np.ndarray, name: str = "a.tif", **options: Any) -> float:
    Image.fromarray(values).save(tmp_path / name, **options)
    return float(read_image(tmp_path / name).mean())


def test_the_picture_itself(grey: np.ndarray) -> None:
    assert grey.mean() == pytest.approx(MEAN, abs=0.05)


@pytest.mark.parametrize("stray", [0.5, 1.02, float("inf"), float("-inf"), float("nan"), 300.0])
def test_floats_to_one_with_a_stray_pixel(grey: np.ndarray, tmp_path: Path, stray: float) -> None:
    assert brightness(tmp_path, with_one(share(grey), stray)) == pytest.approx(MEAN, abs=0.5)


@pytest.mark.parametrize("white", [1, 255, 1023, 4095, 65535])
def test_floats_to_any_white(grey: np.ndarray, tmp_path: Path, white: int) -> None:
    assert brightness(tmp_path, share(grey) * np.float32(white)) == pytest.approx(MEAN, abs=0.5)


@pytest.mark.parametrize("bits", [8, 10, 12, 16, 31])
def test_long_integers(grey: np.ndarray, tmp_path: Path, bits: int) -> None:
    assert brightness(tmp_path, of_bits(grey, bits, np.int32)) == pytest.approx(MEAN, abs=0.6)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_few_bits_in_sixteen(
    grey: np.ndarray, tmp_path: Path, bits: int, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        found = brightness(tmp_path, of_bits(grey, bits), name)
    assert found == pytest.approx(MEAN, abs=0.6)
    warned = [record.getMessage() for record in caplog.records]
    assert len(warned) == (bits < 16)
    if warned:
        assert str(tmp_path / name) in warned[0]
        assert f"0 to {2**bits - 1}" in warned[0]


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("channels", [3, 4])
def test_few_bits_in_sixteen_in_colour(tmp_path: Path, name: str, channels: int) -> None:
    rgb = np.asarray(Image.open(PHOTO).convert("RGB"))
    values = of_bits(rgb, 12)[..., ::-1]
    if channels == 4:
        values = np.dstack([values, np.full(values.shape[:2], 4095, np.uint16)])
    assert cv2.imwrite(str(tmp_path / name), values)
    found = read_image(tmp_path / name)
    assert np.abs(found.astype(int) - rgb).max() <= 1
    in_memory = decode((tmp_path / name).read_bytes())
    assert np.array_equal(in_memory, found)


def test_colour_of_sixteen_bits_is_read_as_before(tmp_path: Path) -> None:
    rgb = np.asarray(Image.open(PHOTO).convert("RGB"))
    assert cv2.imwrite(str(tmp_path / "a.png"), (rgb.astype(np.uint16) * 257)[..., ::-1])
    assert np.array_equal(read_image(tmp_path / "a.png"), rgb)


def png_with_significant_bits(values: np.ndarray, bits: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "PNG")
    data = stream.getvalue()
    body = b"sBIT" + bytes([bits])
    chunk = struct.pack(">I", 1) + body + struct.pack(">I", zlib.crc32(body))
    return data[:33] + chunk + data[33:]


def test_a_png_says_its_bits(
    grey: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Dark, so that its values alone would suggest fewer."""
    dark = of_bits(grey // 8, 12)
    (tmp_path / "a.png").write_bytes(png_with_significant_bits(dark, 12))
    with caplog.at_level(logging.WARNING):
        found = read_image(tmp_path / "a.png").mean()
    assert found == pytest.approx((grey // 8).mean(), abs=0.5)
    assert not caplog.records


def test_bits_that_were_spread_over_sixteen_stay_so(grey: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_with_significant_bits(of_bits(grey, 16), 12))
    assert read_image(tmp_path / "a.png").mean() == pytest.approx(MEAN, abs=0.5)


@pytest.mark.parametrize("tag", [281, 50717])
def test_a_tiff_says_its_white(
    grey: np.ndarray, tmp_path: Path, tag: int, caplog: pytest.LogCaptureFixture
) -> None:
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    tags = ImageFileDirectory_v2()
    tags.tagtype[tag] = 3
    tags[tag] = 4095
    with caplog.at_level(logging.WARNING):
        found = brightness(tmp_path, of_bits(grey // 8, 12), tiffinfo=tags)
    assert found == pytest.approx((grey // 8).mean(), abs=0.5)
    assert not caplog.records


def test_long_integers_without_a_sign(grey: np.ndarray, tmp_path: Path) -> None:
    values = of_bits(grey, 32, np.uint32)
    Image.fromarray(values.view(np.int32)).save(tmp_path / "a.tif")
    data = (tmp_path / "a.tif").read_bytes()
    signed, unsigned = (struct.pack("<HHIH", 339, 3, 1, kind) for kind in (2, 1))
    assert data.count(signed) == 1
    (tmp_path / "a.tif").write_bytes(data.replace(signed, unsigned))
    assert read_image(tmp_path / "a.tif").mean() == pytest.approx(MEAN, abs=0.6)


@pytest.mark.parametrize("bits", [12, 15])
def test_sixteen_bits_with_a_sign(grey: np.ndarray, tmp_path: Path, bits: int) -> None:
    Image.fromarray(of_bits(grey, bits)).save(tmp_path / "a.tif", tiffinfo={339: 2})
    assert read_image(tmp_path / "a.tif").mean() == pytest.approx(MEAN, abs=0.6)


def test_negatives_are_turned(grey: np.ndarray, tmp_path: Path) -> None:
    negative = 65535 - of_bits(grey, 16)
    assert brightness(tmp_path, negative, tiffinfo={262: 0}) == pytest.approx(MEAN, abs=0.6)


def test_a_grey_map_of_few_bits_is_no_guess(
    grey: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    height, width = grey.shape
    body = of_bits(grey // 8, 12).astype(">u2").tobytes()
    (tmp_path / "a.pgm").write_bytes(f"P5 {width} {height} 4095\n".encode() + body)
    with caplog.at_level(logging.WARNING):
        found = read_image(tmp_path / "a.pgm").mean()
    assert found == pytest.approx((grey // 8).mean(), abs=0.5)
    assert not caplog.records


def test_deep_images_are_turned_upright(grey: np.ndarray, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(of_bits(grey, 16)).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png")[..., 0], np.rot90(grey, k=-1))


def test_black_is_black_and_no_guess(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for kind in (np.bool_, np.uint16, np.int64, np.float32):
            assert not to_eight_bits(np.zeros((2, 2), kind)).any()
    assert not to_eight_bits(np.full((2, 2), np.nan)).any()
    assert to_eight_bits(np.zeros((0, 2))).shape == (0, 2)
    assert not caplog.records


def test_booleans_are_black_and_white() -> None:
    assert to_eight_bits(np.array([[False, True]])).tolist() == [[0, 255]]
