"""`ovseg doctor`: what an installation has, what it lacks, and what is broken in it."""

from typing import Annotated

import typer

from ovseg_cli.console import say, say_json

EXAMPLES = """
Show versions, devices, caches, what each extra would add, and what is broken.

\b
Examples:
  ovseg doctor
  ovseg doctor --json

Changes nothing and asks nobody. The exit code is 1 if something is broken.
"""

_MARKS = {"ok": " ", "absent": "-", "broken": "!"}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """See EXAMPLES, which typer shows."""
    from dataclasses import asdict

    from ovseg.doctor import examine

    findings = examine()
    if as_json:
        say_json([asdict(each) for each in findings], indent=2)
    else:
        topic = ""
        for each in findings:
            if each.topic != topic:
                topic = each.topic
                say(topic)
            say(f"  {_MARKS[each.state]} {each.name:24} {each.detail}")
    if any(each.state == "broken" for each in findings):
        raise typer.Exit(1)
