"""Every reader of files that others made: where hostile bytes come in.

A door knows undamaged inputs, how to damage them, and how ovseg reads them. What it reads is read
to the end: all rows of a table, all masks of a set.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from tests.campaign.mutations import damaged, damaged_header, damaged_json, repacked
from tests.campaign.seeds import (
    bzipped,
    coco_captions,
    colour_maps,
    drawing,
    files,
    instances,
    jpeg,
    label_maps,
    labelled_folder,
    last_state,
    mat_file,
    nothing,
    one,
    packed,
    panoptic,
    panoptic_around,
    parquet,
    photo,
    pictures,
    protocols,
    redcaps,
    result,
    tables,
    tars,
    tokenizer_file,
    torch_file,
    written,
)

if TYPE_CHECKING:
    from ovseg.evaluation.sets.base import EvaluationSet

Damage = Callable[[bytes, Random], bytes]


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

    with written({**labelled_folder(), **photo()}) as folder:
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


_TABLES = ("ovseg.data.build.sources", "ovseg.data.build.tables", "polars", "pyarrow.parquet")
_SETS = ("ovseg.evaluation.sets.catalogue", "pycocotools.mask", "scipy.io")
_TORCH = ("torch", "ovseg.models.registry", "ovseg.models.ovsegmentor.predictor", "transformers")

DOORS: dict[str, Door] = {
    "captions.tsv": Door(_table("tsv"), lambda: tables("tsv"), imports=_TABLES),
    "captions.csv": Door(_table("csv"), lambda: tables("csv"), imports=_TABLES),
    "captions.jsonl": Door(_table("jsonl"), lambda: tables("jsonl"), imports=_TABLES),
    "captions.csv.gz .xz": Door(_table("csv"), packed, repacked, imports=_TABLES),
    "captions.csv.bz2": Door(_table("csv"), bzipped, imports=_TABLES),
    "captions.parquet": Door(_table("parquet"), parquet, imports=_TABLES),
    "COCO captions": Door(_table("coco"), coco_captions, damaged_json, imports=_TABLES),
    "RedCaps": Door(_table("redcaps"), redcaps, damaged_json, imports=_TABLES),
    "folder of tars": Door(_folder_of_captions, tars, around=nothing, imports=_TABLES),
    "shard": Door(_shard, tars),
    "data set folder": Door(_dataset, files("dataset"), around=nothing, imports=_TABLES),
    "data set JSON": Door(
        _dataset, files("dataset", ".json"), damaged_json, files("dataset"), _TABLES
    ),
    "entities.toml": Door(_entities, one("dataset", "entities.toml")),
    "image": Door(_image, pictures, imports=("ovseg.data.images",)),
    "label PNG": Door(_index_png, label_maps, imports=_SETS),
    "panoptic PNG": Door(_colour_png, colour_maps, imports=_SETS),
    "label MAT": Door(_mat, mat_file, imports=_SETS),
    "COCO instances": Door(
        _set("coco-object", "val2017", "instances"),
        instances,
        damaged_json,
        lambda: {"val2017/000000000009.jpg": jpeg((20, 24))},
        _SETS,
    ),
    "panoptic": Door(
        _set("coco-panoptic", "val2017"), panoptic, damaged_json, panoptic_around, _SETS
    ),
    "labelled folder": Door(
        _set("folder", "val"),
        labelled_folder,
        around=photo,
        imports=_SETS,
    ),
    "class file": Door(_classes, lambda: {"a.txt": b"cat; kitten\ndog\n# more\nball\n"}),
    "recipe": Door(_recipe, one("run", "recipe.toml"), imports=("ovseg.config.load",)),
    "protocol": Door(_protocol, protocols, imports=("ovseg.evaluation.protocol", *_SETS)),
    "drawing": Door(_svg, drawing, imports=("ovseg.data.cutouts.svg",)),
    "checkpoint": Door(_checkpoint, one("run", "last.safetensors"), damaged_header, None, _TORCH),
    "released .pth": Door(_released, torch_file, imports=_TORCH),
    "export folder": Door(
        _export, files("onnx", ".json"), damaged_json, files("onnx"), ("onnxruntime", *_TORCH)
    ),
    "train state": Door(
        _train_state,
        last_state("optimizer.safetensors", "process-0.safetensors"),
        damaged_header,
        last_state(),
        ("ovseg.training.checkpoint", *_TORCH),
    ),
    "train state JSON": Door(
        _train_state,
        last_state("state.json"),
        damaged_json,
        last_state(),
        ("ovseg.training.checkpoint", *_TORCH),
    ),
    "tokenizer": Door(_tokenizer, tokenizer_file, damaged_json, None, _TORCH),
    "evaluation result": Door(_records, result, damaged_json, None, _SETS),
}


def emptied(folder: Path) -> Path:
    """The folder, with nothing in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
