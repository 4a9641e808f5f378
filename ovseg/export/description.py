"""Writing `export.json`."""

import hashlib
import json
import platform
from collections.abc import Collection
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ovseg.export.layout import Layout
from ovseg.export.onnx_files import OPSET
from ovseg.export.source import TOKENIZER, Source
from ovseg.files import sha256, write_text
from ovseg.models.export_description import (
    EXPORT_DESCRIPTION,
    FORMAT_VERSION,
    Card,
    Description,
    File,
    Format,
    Pixels,
    Reading,
    Text,
)
from ovseg.models.interface import is_dense

PACKAGES = ("ovseg", "torch", "onnx", "onnxscript", "onnxruntime", "openvino", "tokenizers")


def describe(
    source: Source,
    format: Format,
    layout: Layout,
    folder: Path,
    names: Collection[str] | None = None,
) -> Description:
    """Describe an export whose graphs are written.

    Args:
        source: the model.
        format, layout: how its graphs are written and named.
        folder: where they are.
        names: the files of the export, if the folder holds others beside them.
    """
    files = _files(folder, names)
    model, rule = source.model, source.model.preprocessing
    reading = model.reading if is_dense(model) else None
    text = source.text
    return Description(
        format_version=FORMAT_VERSION,
        format=format,
        kind=source.kind,
        card=Card(
            name=model.card.name,
            description=model.card.description,
            licence=model.card.licence,
            content_hash=_content_hash(files),
        ),
        pixels=Pixels(
            mean=rule.mean,
            std=rule.std,
            short_side=rule.short_side,
            long_side=rule.long_side,
            multiple_of=rule.multiple_of,
            window=rule.window,
            stride=rule.stride,
            cell=source.cell,
        ),
        templates=model.templates,
        threshold=model.threshold,
        scale=source.scale,
        embedding_width=source.embedding_width,
        image_graph=layout.image,
        end_to_end_graph=layout.end_to_end,
        text=None
        if text is None
        else Text(
            graph=layout.text,
            tokenizer=TOKENIZER,
            max_tokens=text.max_tokens,
            pad_id=text.pad_id,
        ),
        reading=None
        if reading is None
        else Reading(scale=reading.scale, pad_to=reading.pad_to, background=reading.background),
        opset=OPSET if format.startswith("onnx") else None,
        versions={"python": platform.python_version(), **_versions()},
        files=files,
    )


def write_description(described: Description, folder: Path) -> None:
    """Write `export.json`."""
    values = described.model_dump(mode="json")
    write_text(folder / EXPORT_DESCRIPTION, json.dumps(values, indent=2, ensure_ascii=False))


def _files(folder: Path, names: Collection[str] | None) -> dict[str, File]:
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    named = ((path.relative_to(folder).as_posix(), path) for path in found)
    return {
        name: File(bytes=path.stat().st_size, sha256=sha256(path))
        for name, path in named
        if names is None or name in names
    }


def _content_hash(files: dict[str, File]) -> str:
    """Of every file, since all of them decide what the export answers."""
    listed = "\n".join(f"{name} {file.sha256}" for name, file in sorted(files.items()))
    return hashlib.sha256(listed.encode()).hexdigest()


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
