"""The reference of the command line and of Python, made from the code when the site is built.

A hook of MkDocs (mkdocs.yml); nothing of it is kept in the repository.
"""

from typing import Any

from mkdocs.structure.files import File, Files

import ovseg
from ovseg_cli.app import app


def on_files(files: Files, *, config: Any) -> Files:
    """Add the two pages."""
    for name, text in (("reference/cli.md", cli_page()), ("reference/api.md", api_page())):
        files.append(File.generated(config, name, content=text))
    return files


def cli_page() -> str:
    """The help of every command, as the terminal shows it."""
    return "# The command line\n\n" + "\n".join(_helps(app, "ovseg"))


def _helps(command: Any, name: str) -> list[str]:
    context = command.make_context(name, [], resilient_parsing=True)
    context.info_name = name
    inner = [
        line
        for key, each in sorted(getattr(command, "commands", {}).items())
        if not each.hidden
        for line in _helps(each, f"{name} {key}")
    ]
    return [f"## `{name}`\n\n```text\n{command.get_help(context)}\n```\n", *inner]


def api_page() -> str:
    """A heading and a docstring for every public name."""
    names = [name for name in ovseg.__all__ if not name.startswith("_")]
    entries = [f"::: {ovseg._HOMES[name]}.{name}" for name in names]
    return "\n\n".join(["# Python: `import ovseg`", *entries]) + "\n"
