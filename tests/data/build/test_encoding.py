"""From any file to a JPEG of known size, or to a reason."""

import io

import numpy as np
import pytest
from PIL import Image

from ovseg.data.build.encoding import BadImageError, prepare_image
from ovseg.data.dataset.folder import ImageOptions
from tests.data.build.hostile import bomb
from tests.data.pictures import picture

SMALL = ImageOptions(short_side=64)


def _save(image: Image.Image, format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def _pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.float32)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_the_shorter_side_becomes_what_is_asked(format: str) -> None:
    made = prepare_image(picture(1, (300, 200), format), SMALL)
    assert (made.width, made.height) == (96, 64)
    opened = Image.open(io.BytesIO(made.data))
    assert (opened.format, opened.mode, opened.size) == ("JPEG", "RGB", (96, 64))


def test_the_picture_stays_the_picture() -> None:
    data = picture(2, (1000, 800))
    made = _pixels(prepare_image(data, SMALL).data)
    wanted = Image.open(io.BytesIO(data)).resize((80, 64), Image.Resampling.BOX)
    assert np.abs(made - np.asarray(wanted, np.float32)).mean() < 2.0


def test_small_images_keep_their_size_and_jpegs_their_bytes() -> None:
    data = picture(3, (50, 40))
    assert prepare_image(data, SMALL).width == 50
    assert prepare_image(data, ImageOptions(short_side=0)).data == data
    png = prepare_image(picture(3, (50, 40), "PNG"), ImageOptions(short_side=0))
    assert png.data[:2] == b"\xff\xd8" and png.height == 40


@pytest.mark.parametrize("side", [0, 64])
def test_exif_orientation_is_applied(side: int) -> None:
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[:, :100] = (255, 0, 0)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter: what was left is on top
    data = _save(Image.fromarray(pixels), "JPEG", exif=exif)
    made = prepare_image(data, ImageOptions(short_side=side))
    assert made.width < made.height
    shown = _pixels(made.data)
    assert shown[5, :, 0].mean() > 200 and shown[-5, :, 0].mean() < 60
    assert Image.open(io.BytesIO(made.data)).getexif().get(0x0112, 1) == 1


def test_odd_modes_come_out_as_they_look() -> None:
    clear = Image.new("RGBA", (80, 80), (255, 0, 0, 0))
    assert _pixels(prepare_image(_save(clear, "PNG"), SMALL).data).min() > 250
    deep = Image.fromarray(np.full((80, 80), 40_000, np.uint16))
    assert abs(_pixels(prepare_image(_save(deep, "PNG"), SMALL).data).mean() - 156) < 2
    for mode in ("L", "CMYK"):
        made = prepare_image(_save(Image.new(mode, (80, 80)), "JPEG"), SMALL)
        assert Image.open(io.BytesIO(made.data)).mode == "RGB"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"  <HTML><body>", "a web page, not an image"),
        (b"GIF89a", "damaged image"),
        (b"nothing", "no image"),
        (b"\xff\xd8\xff\xe0", "no image"),
        (picture(0, (400, 400))[:4000], "truncated image"),
        (picture(0, (8, 400)), "too small"),
        (picture(0, (800, 20)), "too elongated"),
        (bomb(), "too many pixels"),
        (bytes(200_001), "file too large"),
    ],
)
def test_reasons(data: bytes, reason: str) -> None:
    with pytest.raises(BadImageError) as raised:
        prepare_image(data, ImageOptions(short_side=64, max_bytes=200_000))
    assert str(raised.value) in (reason, "no image" if reason == "damaged image" else reason)


def test_random_damage_is_survived() -> None:
    chance = np.random.default_rng(0)
    whole = np.frombuffer(picture(5, (200, 150)), np.uint8)
    for format in ("JPEG", "PNG", "WEBP", "GIF", "TIFF"):
        whole = np.frombuffer(picture(5, (200, 150), format), np.uint8)
        for _ in range(60):
            broken = whole.copy()
            broken[chance.integers(0, len(broken), 20)] = chance.integers(0, 256, 20)
            try:
                prepare_image(broken.tobytes(), SMALL)
            except BadImageError as error:
                assert len(str(error)) < 40
