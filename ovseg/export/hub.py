"""What the Hugging Face hub expects of a folder: a model card, and large files marked as such."""

import json
from pathlib import Path

from ovseg.export.verify import Report, Row
from ovseg.files import write_text
from ovseg.models.manifest import Manifest

_LARGE = ("*.onnx", "*.onnx.data", "*.bin", "*.pt", "*.pt2", "*.safetensors")

_CARD = """---
library_name: ovseg
pipeline_tag: image-segmentation
license: {licence}
{licence_name}tags:
- open-vocabulary
- semantic-segmentation
- zero-shot
- {format}
---

# {name}

Open-vocabulary semantic segmentation: {description}.

Exported by ovseg {version} in the format `{format}`{opset}. Classes are an input of the graph, so
any words can be asked for without a new export.

## Use

```sh
pip install "ovseg[{extra}]"
ovseg segment photo.jpg --model FOLDER --classes cat,dog
```

```python
from ovseg.inference.segmenter import Segmenter

result = Segmenter.from_pretrained("FOLDER").segment("photo.jpg", "cat,dog")
```

## Files

{files}

## Verified

Compared with the model in torch on {images} photos: the same label on at least {agreement:.2%} of
the pixels, scores at most {difference:.1e} apart{text}.

| compared | image | size | largest difference | same labels | export | torch |
|---|---|---|---|---|---|---|
{rows}

Times are medians on one machine with {threads} threads, side by side. `export.json` holds them and
the versions of everything that took part.
"""


def write_hub_files(folder: Path, manifest: Manifest, report: Report) -> None:
    """Write `README.md`, `.gitattributes` and `preprocessor_config.json`."""
    write_text(folder / "README.md", model_card(manifest, report))
    marked = "".join(f"{name} filter=lfs diff=lfs merge=lfs -text\n" for name in _LARGE)
    write_text(folder / ".gitattributes", marked)
    write_text(folder / "preprocessor_config.json", json.dumps(_preprocessor(manifest), indent=2))


def model_card(manifest: Manifest, report: Report) -> str:
    """The text of `README.md`, metadata in front."""
    known = manifest.card.licence.lower()
    simple = known in ("apache-2.0", "mit", "cc-by-4.0", "cc-by-nc-4.0", "cc0-1.0")
    text = report.text_difference
    listed = sorted(manifest.files.items())
    return _CARD.format(
        licence=known if simple else "other",
        licence_name="" if simple else f"license_name: {json.dumps(manifest.card.licence)}\n",
        name=Path(manifest.card.name).stem,
        description=manifest.card.description.rstrip("."),
        version=manifest.versions["ovseg"],
        format=manifest.format,
        opset=f", opset {manifest.opset}" if manifest.opset else "",
        extra="openvino" if manifest.format == "openvino" else "onnx",
        files="\n".join(f"- `{name}`, {file.bytes:,} bytes" for name, file in listed),
        images=len({row.image for row in report.rows}),
        agreement=report.agreement,
        difference=report.difference,
        text="" if text is None else f", class embeddings at most {text:.1e}",
        rows="\n".join(_row(row) for row in report.rows),
        threads=report.threads,
    )


def _row(row: Row) -> str:
    size = f"{row.height}×{row.width}"
    times = f"{1000 * row.seconds:.0f} ms | {1000 * row.model_seconds:.0f} ms"
    alike = f"{row.difference:.1e} | {row.agreement:.3%}"
    return f"| {row.what} | {row.image} | {size} | {alike} | {times} |"


def _preprocessor(manifest: Manifest) -> dict[str, object]:
    """Pixel constants in the terms of Hugging Face's image processors, values in 0..1."""
    pixels = manifest.pixels
    return {
        "do_resize": True,
        "size": {"shortest_edge": pixels.short_side, "longest_edge": pixels.long_side},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [value / 255 for value in pixels.mean],
        "image_std": [value / 255 for value in pixels.std],
    }
