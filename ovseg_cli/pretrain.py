"""`ovseg pretrain`: training from a recipe, on one process or many."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ovseg_cli.asked import AsJson
from ovseg_cli.console import say_json, stderr, stdout

if TYPE_CHECKING:
    from ovseg.training.plan import Plan
    from ovseg.training.run import TrainingResult

EXAMPLES = """
Train a model on image-caption pairs, as a recipe says.

\b
Examples:
  ovseg pretrain cc4m --set data.shards='["/data/cc4m"]' --output runs/cc4m --num-processes 8
  ovseg pretrain cc4m-stage2 --set train.start_from=runs/cc4m --set data.shards='["/data/cc4m"]'
  ovseg pretrain cc4m --set data.shards='["/data/cc4m"]' --dry-run
  ovseg pretrain cc4m --output runs/cc4m --resume auto
  accelerate launch -m ovseg_cli pretrain cc4m --output runs/cc4m

The output folder gets checkpoints/, log.jsonl and log.html (curves, scores and overlays),
overlays/, tensorboard/, best.safetensors (if the recipe names an evaluation) and last.safetensors;
the last two are models for ovseg segment --model.
SIGTERM and SIGUSR1 save at the next step and end with code 143; --resume auto goes on from there.
"""


def pretrain(
    recipe: Annotated[str, typer.Argument(help="A recipe's name, such as cc4m, or a TOML file.")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a key: section.key=value, in TOML's syntax; repeat it."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="The run's folder; runs/RECIPE by default.")
    ] = None,
    num_processes: Annotated[
        int, typer.Option(min=1, help="Processes on this machine, one for each GPU.")
    ] = 1,
    resume: Annotated[
        Literal["never", "auto"],
        typer.Option(help="auto goes on from the newest complete checkpoint, if there is one."),
    ] = "never",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be done, and stop.")
    ] = False,
    data_root: Annotated[
        Path | None, typer.Option(help="Folder of the evaluation's data set.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """See EXAMPLES, which typer shows."""
    from ovseg import api
    from ovseg_cli.launching import STOPPED, leave
    from ovseg_cli.training_view import TrainingView

    changes = set_ or []
    folder = output or Path("runs") / Path(recipe).stem
    if dry_run:
        _show_plan(api.plan_pretraining(recipe, changes, num_processes), as_json)
        return
    if num_processes > 1 and int(os.environ.get("WORLD_SIZE", "1")) == 1:
        api.check_pretraining(recipe, changes, num_processes, data_root)
        raise typer.Exit(_launch(recipe, changes, folder, num_processes, resume, data_root))
    with TrainingView() as view:
        result = api.pretrain(recipe, folder, changes, resume, data_root, view)
    if int(os.environ.get("RANK", "0")) == 0:
        _show_result(result, view.measure, as_json)
    if result.signal:
        raise typer.Exit(leave(STOPPED, agreed=True))


def _launch(
    recipe: str,
    overrides: list[str],
    output: Path,
    num_processes: int,
    resume: str,
    data_root: Path | None,
) -> int:
    from ovseg_cli.launching import launch

    arguments = ["pretrain", recipe, "--output", str(output), "--resume", resume]
    for override in overrides:
        arguments += ["--set", override]
    if data_root is not None:
        arguments += ["--data-root", str(data_root)]
    return launch(num_processes, arguments)


def _show_plan(plan: "Plan", as_json: bool) -> None:
    if as_json:
        say_json(asdict(plan), indent=2)
        return
    pairs = "a stream" if plan.pairs is None else f"{plan.pairs:,} pairs"
    lines = [
        ("data", f"{pairs}, {plan.epoch_steps:,} steps an epoch"),
        ("steps", f"{plan.steps:,} of {plan.global_batch:,} pairs: {plan.samples:,} samples"),
        ("learning rate", _rates(plan)),
        ("parameters", f"{plan.parameters / 1e6:.1f} M, {plan.trained / 1e6:.1f} M trained"),
        ("FLOPs", f"{plan.flops:.3g} in all, {plan.cost.total / 1e9:.1f} G a pair"),
        ("memory", f"about {plan.memory / 2**30:.1f} GiB on each device"),
        ("time", f"about {_duration(plan.seconds)} at {plan.rate_from}"),
    ]
    if plan.cache is not None:
        cache = plan.cache
        total, missing = f"{cache.total / 1e9:.2f} GB", f"{cache.missing / 1e9:.2f} GB"
        made = f"{missing} still to be made, {cache.photos:,} views of photos"
        lines.append(("disk", f"{total} of features in {cache.folder}, {made}"))
    for name, text in lines:
        stdout().print(f"{name:14} {text}", soft_wrap=True)


def _rates(plan: "Plan") -> str:
    schedule = plan.schedule
    warm = f"{schedule.start:.3g} rising over {schedule.warmup_steps:,} steps to "
    return f"{warm if schedule.warmup_steps else ''}{schedule.peak:.3g}, then to {schedule.end:.3g}"


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"


def _show_result(result: "TrainingResult", measure: str, as_json: bool) -> None:
    if as_json:
        values = {**result.__dict__, "output": str(result.output)}
        say_json(values, indent=2)
        return
    if result.signal:
        text = f"stopped by signal {result.signal} after step {result.steps}; --resume auto goes on"
        stderr().print(text)
        return
    best = "" if result.best is None else f", best {measure} {result.best:.1%}"
    stdout().print(f"{result.steps} steps{best}: {result.output}/last.safetensors", soft_wrap=True)
