"""The files that describe a finished set of scenes."""

import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from ovseg.data.cutouts import panoptic
from ovseg.data.cutouts.compose import file_stem
from ovseg.data.cutouts.library import CutOut
from ovseg.data.cutouts.split import Split
from ovseg.files import write_text


def write(
    out: Path,
    side: str,
    records: Sequence[Mapping[str, Any]],
    category_of: Mapping[str, int],
    supercategory_of: Mapping[str, str],
) -> None:
    """COCO panoptic and COCO captions JSON of one side.

    Categories are those the side has cut-outs of: a test set is not scored on words that cannot
    occur in it. Their numbers are the same on both sides.
    """
    images = [_image(record) for record in records]
    panoptic_set = {
        "info": {"description": f"Cut-out scenes, {side}", "version": "1.0"},
        "licenses": [],
        "images": images,
        "annotations": [
            {
                "image_id": record["number"] + 1,
                "file_name": file_stem(record["number"]) + ".png",
                "segments_info": record["segments"],
            }
            for record in records
        ],
        "categories": panoptic.categories(category_of, supercategory_of),
    }
    captions = [
        {"id": record["number"] + 1, "image_id": record["number"] + 1, "caption": record["caption"]}
        for record in records
    ]
    folder = out / "annotations"
    write_text(folder / f"panoptic_{side}.json", json.dumps(panoptic_set))
    caption_set = {"info": panoptic_set["info"], "images": images, "annotations": captions}
    write_text(folder / f"captions_{side}.json", json.dumps(caption_set))


def _image(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": record["number"] + 1,
        "file_name": file_stem(record["number"]) + ".jpg",
        "height": record["height"],
        "width": record["width"],
    }


def write_classes(path: Path, names: Iterable[str]) -> None:
    """One entity a line, sorted."""
    write_text(path, "".join(f"{name}\n" for name in sorted(names)))


def write_names(path: Path, table: Path | None) -> None:
    """The name table that was used, for editing."""
    source = files(__package__).joinpath("names.toml") if table is None else table
    write_text(path, source.read_text(encoding="utf-8"))


def write_table(
    path: Path, cutouts: Sequence[CutOut], split: Split, rejected: Sequence[Sequence[str]]
) -> None:
    """Every file of both folders: its side, entity, group of duplicates, or why it is left out."""
    lines = ["file\tside\tentity\tduplicate_group\treason\twords"]
    for cutout, side, group in zip(cutouts, split.sides, split.groups, strict=True):
        lines.append(f"{cutout.source}\t{side}\t{cutout.name}\t{group}\t\t{cutout.words}")
    for source, reason, *words in rejected:
        lines.append(f"{_cell(source)}\tunused\t\t\t{reason}\t{_cell(' '.join(words))}")
    write_text(path, "\n".join(lines) + "\n")


def _cell(text: str) -> str:
    return " ".join(text.split())
