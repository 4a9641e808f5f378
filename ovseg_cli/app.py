"""The command tree. Commands import the library inside their bodies, so that help stays quick."""

from typing import Annotated

import typer

from ovseg.version import __version__
from ovseg_cli.build_dataset import app as build_dataset
from ovseg_cli.console import say, show_library_warnings
from ovseg_cli.eval import app as eval_app
from ovseg_cli.export import EXAMPLES as EXPORT_EXAMPLES
from ovseg_cli.export import export
from ovseg_cli.models import app as models
from ovseg_cli.pretrain import EXAMPLES as PRETRAIN_EXAMPLES
from ovseg_cli.pretrain import pretrain
from ovseg_cli.segment import EXAMPLES, segment

app = typer.Typer(
    name="ovseg",
    help="Segment any class you can name, with a model that learned from images and captions.",
    no_args_is_help=True,
    rich_markup_mode=None,  # rich help costs a third of a second at every start
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        say(f"ovseg {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    del version  # the callback has done its work
    show_library_warnings()


app.command(help=EXAMPLES)(segment)
app.command(help=PRETRAIN_EXAMPLES)(pretrain)
app.add_typer(eval_app, name="eval")
app.add_typer(models, name="models")
app.command(help=EXPORT_EXAMPLES)(export)
app.add_typer(build_dataset, name="build-dataset")
