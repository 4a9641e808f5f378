"""`ovseg build-dataset cutouts`: captioned scenes with ground-truth masks."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ovseg_cli.console import say, say_json, stdout
from ovseg_cli.progress import progress

if TYPE_CHECKING:
    from ovseg.data.cutouts.build import CutoutsSummary
    from ovseg.data.cutouts.request import CutoutsPlan

EXAMPLES = """
Compose captioned scenes with ground-truth masks from cut-outs on photographs.

\b
Examples:
  ovseg build-dataset cutouts --cutouts /usr/share/tuxpaint/stamps \\
      --backgrounds /usr/share/backgrounds --count 5000 --output scenes
  ovseg build-dataset cutouts --cutouts mine --backgrounds photos --count 100 --dry-run

\b
Cut-outs are .svg files, named by their metadata or a .txt beside them, and transparent .png and
.webp files with a .txt beside them. Public sources packaged by Debian:
  tuxpaint-stamps-default            /usr/share/tuxpaint/stamps
  openclipart-svg                    /usr/share/openclipart/svg
  lomiri-wallpapers, mate-backgrounds, ukui-wallpapers ...    /usr/share/backgrounds

Images with captions are in OUTPUT/images, ground truth for `ovseg eval` in OUTPUT/annotations.
The same seed gives the same bytes, with any number of workers; after an interruption the same
command goes on. No cut-out, and no duplicate of one, is on both sides of the split.
"""


def cutouts(
    cutouts: Annotated[Path, typer.Option(help="Folder of cut-outs with words.")],
    backgrounds: Annotated[Path, typer.Option(help="Folder of photographs.")],
    count: Annotated[int, typer.Option(help="Scenes, training and test together, 1 or more.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the set; made if missing.")
    ] = Path("cutout-scenes"),
    seed: Annotated[int, typer.Option(help="Seed of everything random.", min=0)] = 0,
    size: Annotated[int, typer.Option(help="Longer side of a scene, 64 to 4096 pixels.")] = 384,
    test_share: Annotated[
        float, typer.Option(help="Share of scenes and of cut-outs kept for testing, 0 to 0.9.")
    ] = 0.1,
    names: Annotated[
        Path | None,
        typer.Option(help="Name table (TOML) to use; start from the names.toml of a finished set."),
    ] = None,
    top_entities: Annotated[
        int | None,
        typer.Option(help="Keep only so many entities, 1 or more, those with most drawings."),
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes.", min=1)] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count files, scenes and disk need, and stop.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    from ovseg.data.cutouts.build import build_cutouts
    from ovseg.data.cutouts.request import CutoutsRequest, plan_cutouts

    request = CutoutsRequest(
        cutouts, backgrounds, output, count, seed, size, test_share, names, top_entities
    )
    if dry_run:
        _print_plan(plan_cutouts(request), as_json)
        return
    start = time.perf_counter()
    with _stage_bars() as report:
        summary = build_cutouts(request, workers, report)
    _print_summary(summary, output, time.perf_counter() - start, as_json)


@contextmanager
def _stage_bars() -> Iterator[Callable[[str, int, int | None], None]]:
    """A progress bar that begins anew with every stage."""
    with progress("", total=None) as bar:
        yield bar.update


def _print_plan(plan: "CutoutsPlan", as_json: bool) -> None:
    if as_json:
        say_json(asdict(plan))
        return
    say(
        f"{plan.cutouts} cut-outs and {plan.backgrounds} photographs found; would make "
        f"{plan.train} training and {plan.test} test scenes, about {plan.disk_bytes / 1e6:.0f} MB"
    )


def _print_summary(summary: "CutoutsSummary", output: Path, seconds: float, as_json: bool) -> None:
    if as_json:
        say_json({**asdict(summary), "output": str(output), "seconds": round(seconds, 1)})
        return
    from rich.table import Table

    table = Table("", "train", "test", box=None)
    table.add_row("scenes", str(summary.train), str(summary.test))
    table.add_row("cut-outs", str(summary.cutouts["train"]), str(summary.cutouts["test"]))
    table.add_row("entities", str(summary.entities), str(summary.test_entities))
    console = stdout()
    console.print(table)
    console.print(
        f"{summary.objects} objects; {summary.redrawn} placed anew and {summary.dropped} left out "
        "because too little of them was seen"
    )
    for reason, count in summary.rejected.items():
        console.print(f"files left out, {reason}: {count}")
    console.print(f"written to {output} in {seconds:.0f} s (cutouts.tsv says what became of each)")
