"""Every reader of files that others made: where hostile bytes come in.

A door knows undamaged inputs, how to damage them, and how ovseg reads them. What it reads is read
to the end: all rows of a table, all masks of a set.
"""

import bz2
import gzip
import io
import json
import lzma
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from tests.campaign.mutations import damaged, damaged_header, damaged_json, repacked

if TYPE_CHECKING:
    from ovseg.evaluation.sets.base import EvaluationSet

Damage = Callable[[bytes, Random], bytes]
MADE = Path(__file__).parents[1] / "compatibility" / "made"


@dataclass(frozen=True)
class Door:
    """A reader.

    Attributes:
        open: reads a file, or a folder, of the damaged form.
        seeds: undamaged files by name; for a folder the files that are damaged.
        damage: what is done to a seed.
        around: files of a folder beside the damaged one.
        imports: modules that are loaded before memory is measured.
    """

    open: Callable[[Path], object]
    seeds: Callable[[], dict[str, bytes]]
    damage: Damage = damaged
    around: Callable[[], dict[str, bytes]] | None = None
    imports: tuple[str, ...] = field(default=())

    def prepare(self) -> None:
        """Load what reading needs, and read every seed once."""
        for name in self.imports:
            import_module(name)

    def read(self, path: Path) -> None:
        self.open(path)

    def make(self, folder: Path, random: Random) -> Path:
        """A damaged input in an empty folder; the path to be read."""
        seeds = self.seeds()
        name = random.choice(sorted(seeds))
        beside = {**self.around(), **seeds} if self.around else {}
        for other, content in {**beside, name: self.damage(seeds[name], random)}.items():
            path = folder / other
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return folder if self.around else folder / name


def _table(name: str) -> Callable[[Path], object]:
    def read(path: Path) -> object:
        from ovseg.data.build.sources import Columns, resolve_source
        from ovseg.data.dataset.plan import Tally

        source = resolve_source(str(path), "", Columns(format=name), None)
        source.check()
        tally = Tally()
        return [len(frame) for part in source.parts() for frame in source.chunks(tally, part)]

    return read


def _folder_of_captions(path: Path) -> object:
    from ovseg.data.build.sources import Columns, resolve_source
    from ovseg.data.dataset.plan import Tally

    tally = Tally()
    return [len(f) for f in resolve_source(str(path), "", Columns(), None).chunks(tally)]


def _shard(path: Path) -> object:
    from ovseg.data.dataset.webdataset import read_shard

    return sum(1 for _ in read_shard(str(path)))


def _image(path: Path) -> object:
    from ovseg.data.images import read_image

    return read_image(path).shape


def _index_png(path: Path) -> object:
    from ovseg.evaluation.sets.label_files import read_index_png

    return read_index_png(path).shape


def _colour_png(path: Path) -> object:
    from ovseg.evaluation.sets.label_files import read_colour_png

    return read_colour_png(path).shape


def _mat(path: Path) -> object:
    from ovseg.evaluation.sets.label_files import read_mat

    return read_mat(path, "LabelMap").shape


def _set(name: str, split: str, labels: str | None = None) -> Callable[[Path], object]:
    def read(path: Path) -> object:
        from ovseg.evaluation.sets.catalogue import open_set

        evaluated = open_set(name, path, split, labels)
        return [evaluated.read_labels(sample).shape for sample in evaluated.samples]

    return read


def _classes(path: Path) -> object:
    from ovseg.data.class_list import ClassList

    return ClassList.parse(f"@{path}").names


def _recipe(path: Path) -> object:
    from ovseg.config.load import load_recipe

    return load_recipe(path)


@cache
def _some_set() -> "EvaluationSet":
    from ovseg.evaluation.sets.catalogue import open_set

    with _written({**_labelled_folder(), **_photo()}) as folder:
        return open_set("folder", folder, "val")


def _protocol(path: Path) -> object:
    from ovseg.evaluation.protocol import load_protocol

    return load_protocol(str(path), _some_set())


def _svg(path: Path) -> object:
    from ovseg.data.cutouts.svg import Rejected, read_svg
    from ovseg.errors import DataError

    try:
        return read_svg(path.read_bytes())
    except Rejected as reason:  # counted by who reads libraries of drawings
        raise DataError(str(reason)) from reason


def _entities(path: Path) -> object:
    from ovseg.data.dataset.entities import load_entities

    return load_entities(str(path))


def _checkpoint(path: Path) -> object:
    from ovseg.models.registry import load_model

    model = load_model(str(path), "cpu")
    return model.encode_text(("a circle",), model.templates)


def _released(path: Path) -> object:
    from ovseg.models.ovsegmentor.released import read_released

    return read_released(path)


def _export(path: Path) -> object:
    from ovseg.models.exported import read_exported

    model = read_exported(path, "cpu")
    return model.encode_text(("a circle",), model.templates)


def _train_state(path: Path) -> object:
    from ovseg.training.checkpoint import read_meta, read_tensors

    (folder,) = path.iterdir()
    read_meta(folder)
    return [len(read_tensors(file)) for file in sorted(folder.glob("*.safetensors"))]


def _dataset(path: Path) -> object:
    from ovseg.data.build.inspection import inspect_dataset

    return inspect_dataset(str(path), samples=3).faults


def _tokenizer(path: Path) -> object:
    from ovseg.models.tokenizer import ForeignTokenizer, TokenizerFiles

    stored = TokenizerFiles.from_json(path.read_text("utf-8", "replace"), str(path))
    return stored and ForeignTokenizer(stored, 64, str(path))(["a" * 64 + "! a red circle"])


def _records(path: Path) -> object:
    from ovseg.evaluation.result import EvaluationResult

    return EvaluationResult.read(path).scores


@cache
def _pictures() -> dict[str, bytes]:
    rows = np.arange(24 * 32 * 3, dtype=np.uint8).reshape(24, 32, 3)
    kinds = {}
    for kind in ("png", "jpeg", "webp", "gif", "bmp", "tiff", "ppm"):
        stream = io.BytesIO()
        Image.fromarray(rows).save(stream, kind)
        kinds[f"a.{kind.replace('jpeg', 'jpg')}"] = stream.getvalue()
    return kinds


@cache
def _drawing() -> dict[str, bytes]:
    head = '<svg xmlns="http://www.w3.org/2000/svg" width="90" height="60" viewBox="0 0 9 6">'
    shapes = '<defs><g id="a"><circle r="4"/></g></defs><use href="#a"/><path d="M0 0L9 6z"/></svg>'
    return {"a.svg": (head + shapes).encode()}


@cache
def _label_maps() -> dict[str, bytes]:
    maps = {}
    for mode, dtype in (("L", np.uint8), ("P", np.uint8), ("I;16", np.uint16)):
        stream = io.BytesIO()
        Image.fromarray(np.arange(80, dtype=dtype).reshape(8, 10)).convert(mode).save(stream, "png")
        maps[f"{mode[0]}.png"] = stream.getvalue()
    return maps


@cache
def _colour_maps() -> dict[str, bytes]:
    stream = io.BytesIO()
    Image.fromarray(np.full((6, 8, 3), (3, 2, 0), np.uint8)).save(stream, "png")
    return {"a.png": stream.getvalue()}


@cache
def _mat_file() -> dict[str, bytes]:
    from scipy.io import savemat

    stream = io.BytesIO()
    savemat(stream, {"LabelMap": np.arange(48, dtype=np.uint16).reshape(6, 8)})
    return {"a.mat": stream.getvalue()}


_ROWS = [("http://x/1.jpg", "a cat"), ("http://x/2.jpg", "two dogs, one ball"), ("http://x/3", "é")]


@cache
def _tables(kind: str) -> dict[str, bytes]:
    texts = {
        "tsv": "url\tcaption\n" + "".join(f"{url}\t{text}\n" for url, text in _ROWS),
        "csv": "url,caption\n" + "".join(f'{url},"{text}"\n' for url, text in _ROWS),
        "jsonl": "".join(json.dumps({"url": u, "caption": c}) + "\n" for u, c in _ROWS),
    }
    return {f"a.{kind}": texts[kind].encode()}


@cache
def _packed() -> dict[str, bytes]:
    plain = _tables("csv")["a.csv"]
    return {"a.csv.gz": gzip.compress(plain), "a.csv.xz": lzma.compress(plain)}


@cache
def _bzipped() -> dict[str, bytes]:
    return {"a.csv.bz2": bz2.compress(_tables("csv")["a.csv"])}


@cache
def _parquet() -> dict[str, bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    urls, texts = zip(*_ROWS, strict=True)
    stream = io.BytesIO()
    pq.write_table(pa.table({"url": urls, "caption": texts}), stream)
    return {"a.parquet": stream.getvalue()}


@cache
def _coco_captions() -> dict[str, bytes]:
    images = [{"id": n, "file_name": f"{n}.jpg", "coco_url": f"http://x/{n}"} for n in (1, 2)]
    captions = [{"id": n, "image_id": 1 + n % 2, "caption": "a cat"} for n in range(3)]
    return {"a.json": json.dumps({"images": images, "annotations": captions}).encode()}


@cache
def _redcaps() -> dict[str, bytes]:
    one = {"image_id": "1", "url": "http://x/1", "raw_caption": "A cat", "caption": "a cat"}
    return {"a.json": json.dumps({"info": {}, "annotations": [one, one]}).encode()}


@cache
def _tars() -> dict[str, bytes]:
    members = {
        "0.jpg": _pictures()["a.jpg"], "0.txt": b"a cat", "1.png": _pictures()["a.png"],
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


def _png(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "png")
    return stream.getvalue()


def _jpeg(shape: tuple[int, int]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.zeros((*shape, 3), np.uint8)).save(stream, "jpeg")
    return stream.getvalue()


@cache
def _instances() -> dict[str, bytes]:
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
def _panoptic() -> dict[str, bytes]:
    document = {
        "images": [{"id": 9, "file_name": "000000000009.jpg", "height": 6, "width": 8}],
        "categories": [{"id": 1, "name": "cat", "isthing": 1}, {"id": 2, "name": "sky-other"}],
        "annotations": [{"image_id": 9, "file_name": "000000000009.png", "segments_info": [
            {"id": 515, "category_id": 1, "area": 48, "bbox": [0, 0, 8, 6], "iscrowd": 0}]}],
    }  # fmt: skip
    return {"annotations/panoptic_val2017.json": json.dumps(document).encode()}


@cache
def _panoptic_around() -> dict[str, bytes]:
    labels = np.full((6, 8, 3), (3, 2, 0), np.uint8)
    return {
        "annotations/panoptic_val2017/000000000009.png": _png(labels),
        "val2017/000000000009.jpg": _jpeg((6, 8)),
    }


@cache
def _labelled_folder() -> dict[str, bytes]:
    return {
        "classes.txt": b"1: cat; kitten\n2: dog\n# more\n3: ball\n",
        "labels/a.png": _png(np.eye(8, dtype=np.uint8) * 2),
        "val.txt": b"a.jpg\n",
    }


def _files(folder: str, *kinds: str) -> Callable[[], dict[str, bytes]]:
    @cache
    def read() -> dict[str, bytes]:
        paths = [p for p in (MADE / folder).rglob("*") if p.is_file()]
        wanted = [p for p in paths if not kinds or p.name.endswith(kinds)]
        return {str(p.relative_to(MADE / folder)): p.read_bytes() for p in wanted}

    return read


def _last_state(*kinds: str) -> Callable[[], dict[str, bytes]]:
    name = "step-00000004"
    within = _files(f"run/checkpoints/{name}", *kinds)
    return lambda: {f"{name}/{file}": content for file, content in within().items()}


@cache
def _tokenizer_file() -> dict[str, bytes]:
    data = (MADE / "wordpiece" / "last.safetensors").read_bytes()
    stored = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    return {"a.json": next(v for k, v in stored.items() if "tokenizer" in k).encode()}


@cache
def _torch_file() -> dict[str, bytes]:
    import torch

    stream = io.BytesIO()
    state = {"img_encoder.patch_embed.proj.weight": torch.zeros(4, 3, 2, 2)}
    torch.save({"model": state, "config": {"model": {}}}, stream)
    return {"a.pth": stream.getvalue()}


@cache
def _result() -> dict[str, bytes]:
    import ovseg

    with _written({**_labelled_folder(), **_photo()}) as folder:
        return {"a.json": ovseg.evaluate("folder", folder, split="val").to_json().encode()}


@cache
def _protocols() -> dict[str, bytes]:
    folder = files("ovseg.evaluation") / "protocols"
    kept = [path for path in folder.iterdir() if path.name.endswith(".toml")]
    return {path.name: path.read_bytes() for path in kept}


@contextmanager
def _written(contents: dict[str, bytes]) -> Iterator[Path]:
    """A folder with these files."""
    with TemporaryDirectory() as folder:
        for name, content in contents.items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        yield Path(folder)


def _one(folder: str, name: str) -> Callable[[], dict[str, bytes]]:
    return lambda: {name: (MADE / folder / name).read_bytes()}


def _photo() -> dict[str, bytes]:
    return {"images/a.jpg": _jpeg((8, 8))}


def _nothing() -> dict[str, bytes]:
    return {}


_TABLES = ("ovseg.data.build.sources", "ovseg.data.build.tables", "polars", "pyarrow.parquet")
_SETS = ("ovseg.evaluation.sets.catalogue", "pycocotools.mask", "scipy.io")
_TORCH = ("torch", "ovseg.models.registry", "ovseg.models.ovsegmentor.predictor", "transformers")

DOORS: dict[str, Door] = {
    "captions.tsv": Door(_table("tsv"), lambda: _tables("tsv"), imports=_TABLES),
    "captions.csv": Door(_table("csv"), lambda: _tables("csv"), imports=_TABLES),
    "captions.jsonl": Door(_table("jsonl"), lambda: _tables("jsonl"), imports=_TABLES),
    "captions.csv.gz .xz": Door(_table("csv"), _packed, repacked, imports=_TABLES),
    "captions.csv.bz2": Door(_table("csv"), _bzipped, imports=_TABLES),
    "captions.parquet": Door(_table("parquet"), _parquet, imports=_TABLES),
    "COCO captions": Door(_table("coco"), _coco_captions, damaged_json, imports=_TABLES),
    "RedCaps": Door(_table("redcaps"), _redcaps, damaged_json, imports=_TABLES),
    "folder of tars": Door(_folder_of_captions, _tars, around=_nothing, imports=_TABLES),
    "shard": Door(_shard, _tars),
    "data set folder": Door(_dataset, _files("dataset"), around=_nothing, imports=_TABLES),
    "data set JSON": Door(
        _dataset, _files("dataset", ".json"), damaged_json, _files("dataset"), _TABLES
    ),
    "entities.toml": Door(_entities, _one("dataset", "entities.toml")),
    "image": Door(_image, _pictures, imports=("ovseg.data.images",)),
    "label PNG": Door(_index_png, _label_maps, imports=_SETS),
    "panoptic PNG": Door(_colour_png, _colour_maps, imports=_SETS),
    "label MAT": Door(_mat, _mat_file, imports=_SETS),
    "COCO instances": Door(
        _set("coco-object", "val2017", "instances"),
        _instances,
        damaged_json,
        lambda: {"val2017/000000000009.jpg": _jpeg((20, 24))},
        _SETS,
    ),
    "panoptic": Door(
        _set("coco-panoptic", "val2017"), _panoptic, damaged_json, _panoptic_around, _SETS
    ),
    "labelled folder": Door(
        _set("folder", "val"),
        _labelled_folder,
        around=_photo,
        imports=_SETS,
    ),
    "class file": Door(_classes, lambda: {"a.txt": b"cat; kitten\ndog\n# more\nball\n"}),
    "recipe": Door(_recipe, _one("run", "recipe.toml"), imports=("ovseg.config.load",)),
    "protocol": Door(_protocol, _protocols, imports=("ovseg.evaluation.protocol", *_SETS)),
    "drawing": Door(_svg, _drawing, imports=("ovseg.data.cutouts.svg",)),
    "checkpoint": Door(_checkpoint, _one("run", "last.safetensors"), damaged_header, None, _TORCH),
    "released .pth": Door(_released, _torch_file, imports=_TORCH),
    "export folder": Door(
        _export, _files("onnx", ".json"), damaged_json, _files("onnx"), ("onnxruntime", *_TORCH)
    ),
    "train state": Door(
        _train_state,
        _last_state("optimizer.safetensors", "process-0.safetensors"),
        damaged_header,
        _last_state(),
        ("ovseg.training.checkpoint", *_TORCH),
    ),
    "train state JSON": Door(
        _train_state,
        _last_state("state.json"),
        damaged_json,
        _last_state(),
        ("ovseg.training.checkpoint", *_TORCH),
    ),
    "tokenizer": Door(_tokenizer, _tokenizer_file, damaged_json, None, _TORCH),
    "evaluation result": Door(_records, _result, damaged_json, None, _SETS),
}


def emptied(folder: Path) -> Path:
    """The folder, with nothing in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
