"""The command tree. Commands import the library inside their bodies, so that help stays quick."""

from typing import Annotated, Any

import typer
from typer.main import get_command

from ovseg.version import __version__
from ovseg_cli.build_dataset import app as build_dataset
from ovseg_cli.config import app as config
from ovseg_cli.console import say, set_verbosity, show_library_log
from ovseg_cli.demo import EXAMPLES as DEMO_EXAMPLES
from ovseg_cli.demo import demo
from ovseg_cli.doctor import EXAMPLES as DOCTOR_EXAMPLES
from ovseg_cli.doctor import doctor
from ovseg_cli.eval import app as eval_app
from ovseg_cli.export import EXAMPLES as EXPORT_EXAMPLES
from ovseg_cli.export import export
from ovseg_cli.models import app as models
from ovseg_cli.pretrain import EXAMPLES as PRETRAIN_EXAMPLES
from ovseg_cli.pretrain import pretrain
from ovseg_cli.segment import EXAMPLES, segment
from ovseg_cli.serve import EXAMPLES as SERVE_EXAMPLES
from ovseg_cli.serve import serve
from ovseg_cli.teach import EXAMPLES as TEACH_EXAMPLES
from ovseg_cli.teach import teach

_MORE = "Say more on stderr; twice, still more."
_LESS = "Say nothing on stderr but errors."

_tree = typer.Typer(
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


@_tree.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
    verbose: Annotated[
        int, typer.Option("--verbose", "-v", count=True, help=_MORE, show_default=False)
    ] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help=_LESS)] = False,
) -> None:
    del version  # the callback has done its work
    show_library_log()
    set_verbosity(-1 if quiet else verbose)


_tree.command(help=EXAMPLES)(segment)
_tree.command(help=TEACH_EXAMPLES)(teach)
_tree.command(help=PRETRAIN_EXAMPLES)(pretrain)
_tree.add_typer(eval_app, name="eval")
_tree.add_typer(models, name="models")
_tree.command(help=EXPORT_EXAMPLES)(export)
_tree.command(help=SERVE_EXAMPLES)(serve)
_tree.command(help=DEMO_EXAMPLES)(demo)
_tree.add_typer(build_dataset, name="build-dataset")
_tree.add_typer(config, name="config")
_tree.command(help=DOCTOR_EXAMPLES)(doctor)


def _set(verbose: int, quiet: bool) -> None:
    """How much is said, where the options of a command say it."""
    if quiet or verbose:
        set_verbosity(-1 if quiet else verbose)


def _verbosity(
    verbose: Annotated[
        int,
        typer.Option(
            "--verbose",
            "-v",
            count=True,
            help=_MORE,
            show_default=False,
            callback=lambda steps: _set(steps, False),
        ),
    ] = 0,
    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", help=_LESS, callback=lambda wanted: _set(0, wanted)),
    ] = False,
) -> None:
    """Lends its options to every command."""


def _with_verbosity(command: Any, options: list[Any]) -> Any:
    """A command, or all of a group, that also takes -v and -q behind its name."""
    for each in getattr(command, "commands", {}).values():
        if hasattr(each, "commands"):
            _with_verbosity(each, options)
        else:
            each.params += options
    return command


def _lent() -> list[Any]:
    lender = typer.Typer(add_completion=False)
    lender.command()(_verbosity)
    options: list[Any] = get_command(lender).params
    for option in options:
        option.expose_value = False
    return options


app = _with_verbosity(get_command(_tree), _lent())
