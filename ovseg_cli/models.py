"""`ovseg models`: the models there are, what is in a file, fetching and converting."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from ovseg_cli.console import say, say_json
from ovseg_cli.progress import spinning

app = typer.Typer(help="List, inspect, fetch and convert models.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


@app.command("list")
def list_models(as_json: Json = False) -> None:
    """List the models known by name.

    Example: ovseg models list
    """
    from ovseg.models.catalogue import CATALOGUE
    from ovseg.models.description import describe_entry

    rows = [describe_entry(entry) for entry in CATALOGUE]
    if as_json:
        say_json(rows, indent=2)
    else:
        for row in rows:
            _print_lines(_listing(row))


@app.command()
def info(
    model: Annotated[str, typer.Argument(metavar="FILE|NAME", help="A checkpoint, or a name.")],
    as_json: Json = False,
) -> None:
    """Show what a checkpoint or a named model is; a file of ours is checked against its hash.

    Example: ovseg models info runs/cc4m/best.safetensors
    """
    from ovseg.models.description import describe

    values = describe(model)
    if as_json:
        say_json(values, indent=2)
    else:
        _print_lines(_lines(values, ""))


@app.command()
def pull(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model that `list` shows.")],
    as_json: Json = False,
) -> None:
    """Download a model by name: resumed where it broke off, and checked.

    Example: ovseg models pull starter
    """
    from ovseg.models.registry import find_entry
    from ovseg.models.registry import pull as pull_entry

    path = pull_entry(find_entry(name))
    if as_json:
        say_json({"name": name, "path": str(path) if path else None}, indent=2)
    else:
        say(str(path) if path else f"{name} is built in: there is nothing to pull")


@app.command()
def convert(
    released: Annotated[Path, typer.Argument(metavar="RELEASED.pth", help="The authors' file.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.safetensors", help="The file to write.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A size that the file does not tell."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Turn a released checkpoint into a safetensors file, without running what is in it.

    Those of OVSegmentor, and Talk2DINO's projections.

    Example: ovseg models convert ovsegmentor.pth ovsegmentor.safetensors
    """
    from dataclasses import asdict

    from ovseg.models.released_files import convert_released

    with spinning(f"converting {released}"):
        made = convert_released(released, out, overrides or [])
    if as_json:
        say_json({"path": str(out), **asdict(made)}, indent=2)
    else:
        say(f"{out}: {made.tensors} tensors, {made.parameters / 1e6:.1f} M parameters")


def _listing(row: dict[str, Any]) -> Iterator[str]:
    """A model in a few lines that fit narrow terminals and `grep -A`."""
    size = f", {_size(row)}" if row["size"] else ""
    yield f"{row['name']}  ({row['kind']}{size}, {'here' if row['cached'] else 'not here'})"
    yield f"    {row['description']}"
    if row["scores"]:
        scores = ", ".join(f"{name} {score:.1f}" for name, score in row["scores"].items())
        yield f"    published mIoU: {scores}"
    revision = f" ({row['code read at']})" if "code read at" in row else ""
    yield f"    licence: {row['licence']}; source: {row['source']}{revision}"
    if not row["cached"]:
        yield f"    to fetch it: ovseg models pull {row['name']}"


def _size(row: dict[str, Any]) -> str:
    from ovseg.download import show_size

    return "" if row["size"] is None else show_size(row["size"])


def _print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        say(line)


def _lines(values: dict[str, Any], indent: str) -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield f"{indent}{key}:"
            yield from _lines(value, f"{indent}  ")
        elif value not in (None, "", {}):
            yield f"{indent}{key}: {_shown(key, value)}"


def _shown(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key == "size":
        return _size({"size": value})
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return f"{value:,}" if key in ("parameters", "tensors") else str(value)
