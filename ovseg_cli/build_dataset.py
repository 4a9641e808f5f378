"""`ovseg build-dataset SOURCE ...`, and what is done with a data set afterwards."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from ovseg_cli import console, cutouts, dataset_tables
from ovseg_cli.asked import AsJson
from ovseg_cli.defaults import DefaultCommandGroup
from ovseg_cli.progress import progress

if TYPE_CHECKING:
    from ovseg.data.workers import Progress

_BUILD = "from"

EXAMPLES = """
Build a data set from SOURCE; the word `from` may be left out.

\b
Examples:
  ovseg build-dataset cc12m --entities paper100 --output data/cc4m
  ovseg build-dataset recipes/flickr8k.toml --source captions.tsv --images images -o data/flickr8k
  ovseg build-dataset photos/ --set entities.top=20 --set build.seed=1 --output data/mine
  ovseg build-dataset rows.parquet --set source.url_column=link -o data/mine --dry-run

\b
SOURCE is cc12m, cc3m, redcaps, yfcc or coco; the path of a table (TSV, CSV, JSONL, parquet), of a
COCO captions file, of a folder of images with .txt files, or of a folder of webdataset tars; or a
recipe: a TOML file, or its name, such as flickr8k.

The options from --source to --workers are short for keys of the recipe; --set reaches all of them:
[source] [entities] [image] [build] [fetch] [engine]; docs/datasets.md lists them. An interrupted
build goes on with the same command.
"""

Source = Annotated[
    str, typer.Argument(metavar="SOURCE", help="A source, or a recipe by name or as a TOML file.")
]
Captions = Annotated[
    str, typer.Option("--source", help="The captions file of a named source, if it is here.")
]
Entities = Annotated[
    str, typer.Option(help="paper100, or a file of entities; left out, they are chosen here.")
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a key: section.key=value, in TOML's syntax; repeat it."),
]


class _SourceFirst(DefaultCommandGroup):
    """A group whose first word is a command or else the source of `from`."""

    default = _BUILD


app = typer.Typer(
    cls=_SourceFirst,
    no_args_is_help=True,
    help="Build a training set of images and captions: ovseg build-dataset SOURCE --output DIR.",
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)
app.command(name="cutouts", help=cutouts.EXAMPLES)(cutouts.cutouts)


@app.command(_BUILD, help=EXAMPLES)
def build(
    source: Source,
    output: Annotated[
        str,
        typer.Option("--output", "-o", help="Folder of the data set, or s3://... and the like."),
    ] = "",
    captions: Captions = "",
    images: Annotated[
        str,
        typer.Option(help="Folder with the images, if they are here; else they are fetched."),
    ] = "",
    entities: Entities = "",
    match: Annotated[
        str,
        typer.Option(
            help="lexical, or pos: a tagger confirms ambiguous forms. The recipe's by default."
        ),
    ] = "",
    image_size: Annotated[
        int | None,
        typer.Option(
            help="Shorter side in pixels; 0 keeps JPEG files as they are. The recipe's by default, "
            "256 where it says nothing.",
            min=0,
            max=65_535,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Processes; 0 is one per core, and the default.", min=0, max=1_024),
    ] = None,
    set_: Changes = None,
    shard_range: Annotated[
        str, typer.Option(help="i/n: build the i-th of n parts only; join with merge.")
    ] = "1/1",
    retry_failures: Annotated[
        bool, typer.Option("--retry-failures", help="Fetch again what failed before.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show counts and disk need; write nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """See EXAMPLES, which typer shows."""
    from ovseg.api import build_dataset
    from ovseg.data import load_request, plan_dataset
    from ovseg.errors import UsageError

    given = {
        "source.captions": captions,
        "source.images": images,
        "entities.source": entities,
        "entities.match": match,
        "image.short_side": image_size,
        "engine.workers": workers,
    }
    recipe = load_request(source, _changes(given, set_))
    part = _parse_part(shard_range)
    if not output and not dry_run:
        raise UsageError("give the data set's folder with --output DIR, or --dry-run")
    with _steps(recipe.source.name) as progress:
        if dry_run:
            plan = plan_dataset(recipe, progress)
        else:
            summary = build_dataset(recipe, output, (), part, retry_failures, progress)
    if dry_run:
        dataset_tables.print_plan(plan, as_json)
    else:
        dataset_tables.print_summary(summary, as_json)


@app.command()
def inspect(
    folder: Annotated[str, typer.Argument(help="Folder or address of the data set.")],
    samples: Annotated[int, typer.Option(help="How many pairs to show.", min=0)] = 5,
    seed: Annotated[int, typer.Option(help="Which ones.", min=0)] = 0,
    verify: Annotated[bool, typer.Option(help="Compare all checksums.")] = True,
    as_json: AsJson = False,
) -> None:
    """Show what a data set holds and verify its checksums; exit code 1 if anything is wrong.

    Example: ovseg build-dataset inspect data/cc4m --samples 3
    """
    from ovseg.data import inspect_dataset

    with _steps() as progress:
        found = inspect_dataset(folder, samples, verify, seed, progress)
    dataset_tables.print_inspection(found, as_json)
    if found.faults:
        raise typer.Exit(1)


@app.command()
def merge(
    parts: Annotated[list[str], typer.Argument(help="Folders built with --shard-range.")],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder or address of the whole.")],
    as_json: AsJson = False,
) -> None:
    """Join the parts of a data set that several machines built.

    Example: ovseg build-dataset merge part1 part2 --output data/cc4m
    """
    from ovseg.data import merge_datasets

    with _steps() as progress:
        summary = merge_datasets(parts, output, progress)
    dataset_tables.print_summary(summary, as_json)


@app.command()
def publish(
    folder: Annotated[str, typer.Argument(help="Folder or address of the data set.")],
    address: Annotated[str, typer.Argument(help="Where to: any fsspec address, s3://... say.")],
) -> None:
    """Copy what is complete of a data set to a bucket or another place; repeat as it grows.

    Example: ovseg build-dataset publish data/cc4m s3://bucket/cc4m
    """
    from ovseg.data import publish_dataset

    with _steps() as progress:
        sent = publish_dataset(folder, address, progress)
    console.stdout().print(f"{sent:,} files sent to {address}", soft_wrap=True)


@app.command()
def agreement(
    source: Source,
    captions: Captions = "",
    entities: Annotated[str, typer.Option(help="paper100, or a file of entities.")] = "",
    set_: Changes = None,
    as_json: AsJson = False,
) -> None:
    """Measure how far matching by form agrees with a tagger that reads every caption.

    Example: ovseg build-dataset agreement cc3m --source cc3m-validation.tsv
    """
    from ovseg.data import agreement_on, load_request

    given = {"source.captions": captions, "entities.source": entities}
    recipe = load_request(source, _changes(given, set_))
    with progress("tagging", None) as bar:
        measured = agreement_on(recipe, bar.advance)
    dataset_tables.print_agreement(measured, as_json)


def _changes(given: Mapping[str, str | int | None], more: list[str] | None) -> list[str]:
    """The options that were given, as changes of keys; `--set` comes last and wins."""
    short = [
        f"{key}={json.dumps(value, ensure_ascii=False)}"
        for key, value in given.items()
        if value not in (None, "")
    ]
    return [*short, *(more or [])]


def _parse_part(text: str) -> tuple[int, int]:
    from ovseg.errors import UsageError

    first, slash, second = text.partition("/")
    if not (slash and first.isdigit() and second.isdigit()):
        raise UsageError(f"--shard-range {text}: write it as 1/4, the first of four parts")
    return int(first), int(second)


@contextmanager
def _steps(source: str = "") -> Iterator["Progress"]:
    """One bar that follows the library from step to step."""
    with progress("starting", None) as bar:
        current = ""

        def show(step: str, done: int, total: int | None) -> None:
            nonlocal current
            if step != current and step.startswith("downloading"):
                _announce_download(source)
            current = step
            bar.update(step, done, total)

        yield show


def _announce_download(source: str) -> None:
    """Say, with the first bytes, what is downloaded and how large it is."""
    from ovseg.data.build.sources import KNOWN

    known = KNOWN[source]
    console.stderr().print(
        f"downloading {known.url} ({known.size}; its publisher states no checksum)",
        soft_wrap=True,
    )
