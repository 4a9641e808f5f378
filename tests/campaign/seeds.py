"""Undamaged files of every kind that a door takes, by name; made here or by an older version."""

import bz2
import gzip
import io
import json
import lzma
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

MADE = Path(__file__).parents[1] / "compatibility" / "made"


@cache
def pictures() -> dict[str, bytes]:
    rows = np.arange(24 * 32 * 3, dtype=np.uint8).reshape(24, 32, 3)
    kinds = {}
    for kind in ("png", "jpeg", "webp", "gif", "bmp", "tiff", "ppm"):
        stream = io.BytesIO()
        Image.fromarray(rows).save(stream, kind)
        kinds[f"a.{kind.replace('jpeg', 'jpg')}"] = stream.getvalue()
    return kinds


@cache
def drawing() -> dict[str, bytes]:
    head = '<svg xmlns="http://www.w3.org/2000/svg" width="90" height="60" viewBox="0 0 9 6">'
    shapes = '<defs><g id="a"><circle r="4"/></g></defs><use href="#a"/><path d="M0 0L9 6z"/></svg>'
    return {"a.svg": (head + shapes).encode()}


@cache
def label_maps() -> dict[str, bytes]:
    maps = {}
    for mode, dtype in (("L", np.uint8), ("P", np.uint8), ("I;16", np.uint16)):
        stream = io.BytesIO()
        Image.fromarray(np.arange(80, dtype=dtype).reshape(8, 10)).convert(mode).save(stream, "png")
        maps[f"{mode[0]}.png"] = stream.getvalue()
    return maps


@cache
def colour_maps() -> dict[str, bytes]:
    stream = io.BytesIO()
    Image.fromarray(np.full((6, 8, 3), (3, 2, 0), np.uint8)).save(stream, "png")
    return {"a.png": stream.getvalue()}


@cache
def mat_file() -> dict[str, bytes]:
    from scipy.io import savemat

    stream = io.BytesIO()
    savemat(stream, {"LabelMap": np.arange(48, dtype=np.uint16).reshape(6, 8)})
    return {"a.mat": stream.getvalue()}


_ROWS = [("http://x/1.jpg", "a cat"), ("http://x/2.jpg", "two dogs, one ball"), ("http://x/3", "é")]


@cache
def tables(kind: str) -> dict[str, bytes]:
    texts = {
        "tsv": "url\tcaption\n" + "".join(f"{url}\t{text}\n" for url, text in _ROWS),
        "csv": "url,caption\n" + "".join(f'{url},"{text}"\n' for url, text in _ROWS),
        "jsonl": "".join(json.dumps({"url": u, "caption": c}) + "\n" for u, c in _ROWS),
    }
    return {f"a.{kind}": texts[kind].encode()}


@cache
def packed() -> dict[str, bytes]:
    plain = tables("csv")["a.csv"]
    return {"a.csv.gz": gzip.compress(plain), "a.csv.xz": lzma.compress(plain)}


@cache
def bzipped() -> dict[str, bytes]:
    return {"a.csv.bz2": bz2.compress(tables("csv")["a.csv"])}


@cache
def parquet() -> dict[str, bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    urls, texts = zip(*_ROWS, strict=True)
    stream = io.BytesIO()
    pq.write_table(pa.table({"url": urls, "caption": texts}), stream)
    return {"a.parquet": stream.getvalue()}


@cache
def coco_captions() -> dict[str, bytes]:
    images = [{"id": n, "file_name": f"{n}.jpg", "coco_url": f"http://x/{n}"} for n in (1, 2)]
    captions = [{"id": n, "image_id": 1 + n % 2, "caption": "a cat"} for n in range(3)]
    return {"a.json": json.dumps({"images": images, "annotations": captions}).encode()}


@cache
def redcaps() -> dict[str, bytes]:
    one = {"image_id": "1", "url": "http://x/1", "raw_caption": "A cat", "caption": "a cat"}
    return {"a.json": json.dumps({"info": {}, "annotations": [one, one]}).encode()}


@cache
def tars() -> dict[str, bytes]:
    members = {
        "0.jpg": pictures()["a.jpg"], "0.txt": b"a cat", "1.png": pictures()["a.png"],
        "1.json": b'{"caption": "a dog"}',
    }  # fmt: skip
    archives = {}
    for kind, name in ((tarfile.PAX_FORMAT, "pax"), (tarfile.GNU_FORMAT, "gnu")):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=kind) as archive:
            for member, content in members.items():
                info = tarfile.TarInfo(("long/" * 30 if name == "gnu" else "") + member)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        archives[f"{name}.tar"] = stream.getvalue()
    return archives


def png(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "png")
    return stream.getvalue()


def jpeg(shape: tuple[int, int]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.zeros((*shape, 3), np.uint8)).save(stream, "jpeg")
    return stream.getvalue()


@cache
def instances() -> dict[str, bytes]:
    square = [[1.0, 1.0, 9.0, 1.0, 9.0, 9.0, 1.0, 9.0]]
    counts: dict[str, object] = {"counts": [30, 20, 430], "size": [20, 24]}
    told = {"area": 64.0, "bbox": [1.0, 1.0, 8.0, 8.0], "image_id": 9, "iscrowd": 0}
    from ovseg.evaluation.sets.coco import things

    document = {
        "images": [{"id": 9, "file_name": "000000000009.jpg", "height": 20, "width": 24}],
        "categories": [{"id": n, "name": name} for n, name in enumerate(things().names, 1)],
        "annotations": [
            {"id": 1, "category_id": 1, "segmentation": square, **told},
            {"id": 2, "category_id": 2, "segmentation": counts, **told},
        ],
    }
    return {"annotations/instances_val2017.json": json.dumps(document).encode()}


@cache
def panoptic() -> dict[str, bytes]:
    document = {
        "images": [{"id": 9, "file_name": "000000000009.jpg", "height": 6, "width": 8}],
        "categories": [{"id": 1, "name": "cat", "isthing": 1}, {"id": 2, "name": "sky-other"}],
        "annotations": [{"image_id": 9, "file_name": "000000000009.png", "segments_info": [
            {"id": 515, "category_id": 1, "area": 48, "bbox": [0, 0, 8, 6], "iscrowd": 0}]}],
    }  # fmt: skip
    return {"annotations/panoptic_val2017.json": json.dumps(document).encode()}


@cache
def panoptic_around() -> dict[str, bytes]:
    labels = np.full((6, 8, 3), (3, 2, 0), np.uint8)
    return {
        "annotations/panoptic_val2017/000000000009.png": png(labels),
        "val2017/000000000009.jpg": jpeg((6, 8)),
    }


@cache
def labelled_folder() -> dict[str, bytes]:
    return {
        "classes.txt": b"1: cat; kitten\n2: dog\n# more\n3: ball\n",
        "labels/a.png": png(np.eye(8, dtype=np.uint8) * 2),
        "val.txt": b"a.jpg\n",
    }


def files(folder: str, *kinds: str) -> Callable[[], dict[str, bytes]]:
    @cache
    def read() -> dict[str, bytes]:
        paths = [p for p in (MADE / folder).rglob("*") if p.is_file()]
        wanted = [p for p in paths if not kinds or p.name.endswith(kinds)]
        return {str(p.relative_to(MADE / folder)): p.read_bytes() for p in wanted}

    return read


def last_state(*kinds: str) -> Callable[[], dict[str, bytes]]:
    name = "step-00000004"
    within = files(f"run/checkpoints/{name}", *kinds)
    return lambda: {f"{name}/{file}": content for file, content in within().items()}


@cache
def tokenizer_file() -> dict[str, bytes]:
    data = (MADE / "wordpiece" / "last.safetensors").read_bytes()
    stored = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    return {"a.json": next(v for k, v in stored.items() if "tokenizer" in k).encode()}


@cache
def torch_file() -> dict[str, bytes]:
    import torch

    stream = io.BytesIO()
    state = {"img_encoder.patch_embed.proj.weight": torch.zeros(4, 3, 2, 2)}
    torch.save({"model": state, "config": {"model": {}}}, stream)
    return {"a.pth": stream.getvalue()}


@cache
def result() -> dict[str, bytes]:
    import ovseg

    with written({**labelled_folder(), **photo()}) as folder:
        return {"a.json": ovseg.evaluate("folder", folder, split="val").to_json().encode()}


@cache
def protocols() -> dict[str, bytes]:
    folder = resources.files("ovseg.evaluation") / "protocols"
    kept = [path for path in folder.iterdir() if path.name.endswith(".toml")]
    return {path.name: path.read_bytes() for path in kept}


@contextmanager
def written(contents: dict[str, bytes]) -> Iterator[Path]:
    """A folder with these files."""
    with TemporaryDirectory() as folder:
        for name, content in contents.items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        yield Path(folder)


def one(folder: str, name: str) -> Callable[[], dict[str, bytes]]:
    return lambda: {name: (MADE / folder / name).read_bytes()}


def photo() -> dict[str, bytes]:
    return {"images/a.jpg": jpeg((8, 8))}


def nothing() -> dict[str, bytes]:
    return {}
