"""`ovseg build-dataset SOURCE ...`, and what is done with a data set afterwards.

The group takes a first word that is none of its commands for a source, so that the common case
needs no word more.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ovseg_cli import console, cutouts, dataset_tables
from ovseg_cli.defaults import DefaultCommandGroup

if TYPE_CHECKING:
    from ovseg.data.workers import Progress

_BUILD = "from"


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


@app.command(_BUILD)
def build(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="cc12m, cc3m, redcaps, yfcc, coco, or the path of a table (TSV, CSV, JSONL, "
            "parquet), of a COCO captions file, of a folder of images with .txt files, or of a "
            "folder of webdataset tars.",
        ),
    ],
    output: Annotated[
        str,
        typer.Option("--output", "-o", help="Folder of the data set, or s3://... and the like."),
    ] = "",
    file: Annotated[
        str, typer.Option("--source", help="The captions file of a named source, if it is here.")
    ] = "",
    images: Annotated[
        Path | None,
        typer.Option(
            help="Folder with the images, for those who have them; else they are fetched."
        ),
    ] = None,
    entities: Annotated[
        str,
        typer.Option(help="paper100, or a file of entities; left out, they are chosen here."),
    ] = "",
    top_entities: Annotated[int, typer.Option(help="How many entities to choose.")] = 100,
    sample: Annotated[int, typer.Option(help="Captions that are tagged to choose them.")] = 50_000,
    visual_nouns: Annotated[
        Path | None, typer.Option(help="Your corrections of the visible nouns: +noun or -noun.")
    ] = None,
    match: Annotated[
        str, typer.Option(help="lexical, or pos: a tagger confirms ambiguous forms.")
    ] = "lexical",
    format: Annotated[
        str, typer.Option(help="tsv, csv, jsonl, parquet, coco or redcaps, if the name hides it.")
    ] = "",
    url_column: Annotated[
        str, typer.Option(help="Name or 0-based number of the column of addresses or files.")
    ] = "",
    caption_column: Annotated[
        list[str] | None, typer.Option(help="Name or number of the caption's; repeat to join.")
    ] = None,
    header: Annotated[
        bool | None, typer.Option(help="Whether the table begins with column names.")
    ] = None,
    image_size: Annotated[
        int, typer.Option(help="Shorter side in pixels; 0 keeps JPEG files as they are.")
    ] = 256,
    max_pixels: Annotated[int, typer.Option(help="Larger images are refused.")] = 50_000_000,
    pairs_per_shard: Annotated[int, typer.Option(help="Pairs planned per tar.")] = 5000,
    partners: Annotated[int, typer.Option(help="Partners drawn per pair.")] = 10,
    seed: Annotated[int, typer.Option(help="Of the sample and of the partners.")] = 0,
    shard_range: Annotated[
        str, typer.Option(help="i/n: build the i-th of n parts only; join with merge.")
    ] = "1/1",
    engine: Annotated[str, typer.Option(help="local, ray, or (to fetch) pyspark.")] = "local",
    workers: Annotated[int, typer.Option(help="Processes; 0 is one per core.")] = 0,
    ray_address: Annotated[
        str, typer.Option(help="Ray cluster; else RAY_ADDRESS, else one started here.")
    ] = "",
    threads: Annotated[int, typer.Option(help="Requests at once in each process.")] = 64,
    allow_private_hosts: Annotated[
        bool, typer.Option("--allow-private-hosts", help="Fetch from this network, too.")
    ] = False,
    retry_failures: Annotated[
        bool, typer.Option("--retry-failures", help="Fetch again what failed before.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show counts and disk need; write nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Build a data set from SOURCE; the word `from` may be left out.

    An interrupted build goes on with the same command.

    Example: ovseg build-dataset cc12m --source cc12m.tsv --entities paper100 --output data/cc4m
    """
    from ovseg.data.build.engine import Engine
    from ovseg.data.build.guard import FetchOptions
    from ovseg.data.build.pipeline import BuildOptions, EntityOptions, build_dataset, plan_only
    from ovseg.data.build.sources import Columns, resolve_source
    from ovseg.data.dataset.folder import ImageOptions
    from ovseg.errors import UsageError

    options = BuildOptions(
        EntityOptions(entities, top_entities, sample, visual_nouns, match),
        ImageOptions(image_size, max_pixels=max_pixels),
        FetchOptions(allow_private_hosts, threads=threads),
        Engine(engine, workers, ray_address),
        pairs_per_shard,
        partners,
        seed,
        _parse_part(shard_range),
        retry_failures,
    )
    if not output and not dry_run:
        raise UsageError("give the data set's folder with --output DIR, or --dry-run")
    columns = Columns(format, url_column, tuple(caption_column or ()), header)
    with _steps() as progress:
        found = resolve_source(source, file, columns, images, _download(source, progress))
        if dry_run:
            chosen, plan = plan_only(found, options, progress)
        else:
            summary = build_dataset(found, output, options, progress)
    if dry_run:
        dataset_tables.print_plan(chosen, plan, options.estimated_bytes(plan.rows), as_json)
    else:
        dataset_tables.print_summary(summary, as_json)


@app.command()
def inspect(
    folder: Annotated[str, typer.Argument(help="Folder or address of the data set.")],
    samples: Annotated[int, typer.Option(help="How many pairs to show.")] = 5,
    seed: Annotated[int, typer.Option(help="Which ones.")] = 0,
    verify: Annotated[bool, typer.Option(help="Compare all checksums.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Show what a data set holds and verify its checksums; exit code 1 if anything is wrong.

    Example: ovseg build-dataset inspect data/cc4m --samples 3
    """
    from ovseg.data.build.inspection import inspect_dataset

    with _steps() as progress:
        found = inspect_dataset(folder, samples, verify, seed, progress)
    dataset_tables.print_inspection(found, as_json)
    if found.faults:
        raise typer.Exit(1)


@app.command()
def merge(
    parts: Annotated[list[str], typer.Argument(help="Folders built with --shard-range.")],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder or address of the whole.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Join the parts of a data set that several machines built.

    Example: ovseg build-dataset merge part1 part2 --output data/cc4m
    """
    from ovseg.data.build.copying import merge_datasets

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
    from ovseg.data.build.copying import publish_dataset

    with _steps() as progress:
        sent = publish_dataset(folder, address, progress)
    console.stdout().print(f"{sent:,} files sent to {address}", soft_wrap=True, markup=False)


@app.command()
def agreement(
    source: Annotated[str, typer.Argument(help="As for building: a name or a path.")],
    file: Annotated[str, typer.Option("--source", help="The file of a named source.")] = "",
    entities: Annotated[str, typer.Option(help="paper100, or a file of entities.")] = "paper100",
    format: Annotated[str, typer.Option(help="Format of the table.")] = "",
    url_column: Annotated[str, typer.Option(help="Column of the addresses.")] = "",
    caption_column: Annotated[list[str] | None, typer.Option(help="Column of captions.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Measure how far matching by form agrees with a tagger that reads every caption.

    Example: ovseg build-dataset agreement cc3m --source cc3m-validation.tsv
    """
    from ovseg.data.build.sources import Columns, resolve_source
    from ovseg.data.build.tagging import Tagger, measure_agreement
    from ovseg.data.dataset.entities import load_entities
    from ovseg.data.dataset.plan import Tally

    columns = Columns(format, url_column, tuple(caption_column or ()))
    found = resolve_source(source, file, columns, None)
    with console.progress("tagging", None) as bars:
        measured = measure_agreement(
            found.chunks(Tally()),
            load_entities(entities),
            Tagger(),
            lambda count: bars.advance(bars.task_ids[0], count),
        )
    dataset_tables.print_agreement(measured, as_json)


def _parse_part(text: str) -> tuple[int, int]:
    from ovseg.errors import UsageError

    first, slash, second = text.partition("/")
    if not (slash and first.isdigit() and second.isdigit()):
        raise UsageError(f"--shard-range {text}: write it as 1/4, the first of four parts")
    return int(first), int(second)


def _download(source: str, progress: "Progress") -> "Callable[[int, int | None], None]":
    """Says, with the first bytes, what is downloaded and how large it is."""
    from ovseg.data.build.sources import KNOWN

    announced = False

    def show(here: int, total: int | None) -> None:
        nonlocal announced
        if not announced:
            known = KNOWN[source]
            console.stderr().print(
                f"downloading {known.url} ({known.size}; its publisher states no checksum)",
                soft_wrap=True,
            )
            announced = True
        progress(f"downloading the captions of {source}, bytes", here, total)

    return show


@contextmanager
def _steps() -> Iterator["Progress"]:
    """One bar that follows the library from step to step."""
    with console.progress("starting", None) as bars:
        task = bars.task_ids[0]

        def show(step: str, done: int, total: int | None) -> None:
            bars.update(task, description=step, completed=done, total=total)

        yield show
