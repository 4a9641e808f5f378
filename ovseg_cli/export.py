"""`ovseg export`: one command from a model to a small, fast, verified deployment."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ovseg_cli.console import print_warning, say, say_json, stdout
from ovseg_cli.progress import spinning

if TYPE_CHECKING:
    from rich.table import Table

    from ovseg.export.export import ExportResult

EXAMPLES = """
Export a model to a folder that runs without torch, and prove that it gives the same labels.

\b
Examples:
  ovseg export starter --format onnx --output deployed
  ovseg export runs/cc4m/best.safetensors --format onnx-int8 --output deployed
  ovseg export starter --format web --output page
  ovseg segment photo.jpg --model deployed --classes cat,dog

Formats: onnx, onnx-int8, torchscript, torch-export, openvino, and web, a page that segments in the
browser itself. Classes are an input of the exported
graph: new ones need no new export. Where an export runs, pip install "ovseg[onnx]" is all it needs.
"""


def export(
    model: Annotated[str, typer.Argument(help="A model's name or file.", show_default=False)],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder to write.", show_default=False)
    ],
    format: Annotated[
        str,
        typer.Option("--format", help="onnx, onnx-int8, torchscript, torch-export, openvino, web."),
    ] = "onnx",
    end_to_end: Annotated[
        bool,
        typer.Option(
            "--end-to-end",
            help="Also write a graph from a whole photo to its label map: resizing, normalising, "
            "background and upsampling inside.",
        ),
    ] = False,
    hub_layout: Annotated[
        bool,
        typer.Option("--hub-layout", help="Lay the folder out for the Hugging Face hub."),
    ] = False,
    images: Annotated[
        list[str] | None,
        typer.Option(
            help="Image file, folder or glob to verify and calibrate with; three photos that come "
            "with ovseg by default."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    from ovseg.api import export_model

    if format in ("torchscript", "torch-export"):
        print_warning(f"{format} files hold pickles by their format; onnx has none")
    with spinning("starting") as show:
        done = export_model(
            model,
            output,
            format,
            end_to_end=end_to_end,
            hub_layout=hub_layout,
            images=images or (),
            on_step=lambda step: show(f"{step} ..."),
        )
    if as_json:
        say_json(_values(done), indent=2)
        return
    stdout().print(_table(done))
    _print_summary(done)


def _values(done: "ExportResult") -> dict[str, Any]:
    return {
        "folder": str(done.folder),
        "files": done.files,
        "quantisation": done.quantisation,
        **done.report.to_values(),
    }


def _table(done: "ExportResult") -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("compared", "image", "size", "largest difference", "same labels"):
        table.add_column(heading, overflow="fold")
    for heading in ("export", "torch", "speed"):
        table.add_column(heading, justify="right")
    for row in done.report.rows:
        table.add_row(
            row.what,
            row.image,
            f"{row.height}×{row.width}",
            f"{row.difference:.1e}",
            f"{row.agreement:.3%}",
            f"{1000 * row.seconds:.0f} ms",
            f"{1000 * row.model_seconds:.0f} ms",
            f"{row.model_seconds / row.seconds:.1f}x",
        )
    return table


def _print_summary(done: "ExportResult") -> None:
    from ovseg.download import show_size

    if done.quantisation:
        say(f"int8: {done.quantisation}")
    for name, size in done.files.items():
        say(f"{done.folder / name}  {show_size(size)}")
