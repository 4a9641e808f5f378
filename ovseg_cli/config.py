"""`ovseg config`: the recipes that there are, and every key with its default and its meaning."""

from pathlib import Path
from typing import Annotated

import typer

from ovseg.errors import UsageError
from ovseg_cli.console import say, say_json

HELP = """
Show recipes and their keys, and copy one to change it.

\b
Examples:
  ovseg config list                      the recipes that come with ovseg
  ovseg config show cc4m                 one of them, as it is written
  ovseg config keys learning             keys with "learning" in their name, with defaults
  ovseg config keys --of build-dataset   all keys of data sets' recipes
  ovseg config copy cc4m mine.toml       a copy to change: ovseg pretrain mine.toml
"""

app = typer.Typer(help=HELP, no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


@app.command("list")
def list_recipes(as_json: Json = False) -> None:
    """List the recipes that come with ovseg, and the command that takes each.

    Example: ovseg config list
    """
    from dataclasses import asdict

    from ovseg.config.reference import shipped_recipes

    recipes = shipped_recipes()
    if as_json:
        say_json([asdict(each) for each in recipes], indent=2)
        return
    for each in recipes:
        say(f"{each.name}  (ovseg {each.command})")
        say(f"    {each.about}")


@app.command()
def show(
    recipe: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A recipe.")],
) -> None:
    """Print a recipe as it is written.

    Example: ovseg config show cc4m
    """
    from ovseg.config.reference import recipe_text

    for line in recipe_text(recipe).splitlines():
        say(line)


@app.command()
def keys(
    words: Annotated[
        list[str] | None, typer.Argument(help="Only keys with one of these in name or meaning.")
    ] = None,
    of: Annotated[
        str, typer.Option("--of", help="Whose recipes: pretrain or build-dataset.")
    ] = "pretrain",
    as_json: Json = False,
) -> None:
    """Print keys with what they take, their defaults and what they mean.

    Example: ovseg config keys learning
    """
    from dataclasses import asdict

    from ovseg.config.reference import keys_of

    parts = [word.casefold() for word in words or []]
    found = [
        key
        for key in keys_of(of)
        if not parts or any(part in f"{key.name} {key.meaning}".casefold() for part in parts)
    ]
    if not found:
        raise UsageError(f"no key of {of} has {' or '.join(parts)} in its name or its meaning")
    if as_json:
        say_json([asdict(key) for key in found], indent=2)
        return
    for key in found:
        say(f"{key.name} = {key.default or 'not set'}  ({key.kind})")
        say(f"    {key.meaning}")


@app.command()
def copy(
    recipe: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A recipe.")],
    target: Annotated[Path, typer.Argument(help="The file to write, or its folder.")] = Path(),
) -> None:
    """Copy a recipe, to be changed; a file that is there stays.

    Example: ovseg config copy cc4m mine.toml
    """
    from ovseg.config.reference import copy_recipe

    say(str(copy_recipe(recipe, target)))
