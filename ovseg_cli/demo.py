"""`ovseg demo`: a page to try a model on."""

from contextlib import suppress
from typing import Annotated

import typer

from ovseg_cli.asked import Device
from ovseg_cli.console import print_note
from ovseg_cli.interrupts import Interrupted
from ovseg_cli.serve import Host, warn_of_host

EXAMPLES = """
Show a page on this machine: drop a photo or take one, type words, see what is where.

\b
Examples:
  ovseg demo
  ovseg demo --model starter --model deployed --port 8080

The page moves the threshold, switches models, tells scores under the pointer and has the label map
and COCO to download. Neither the page nor this command asks for anything from elsewhere.
"""


def demo(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="A model's name or file to choose from, as often as you like; by default the "
            "built-in one and all that were downloaded.",
        ),
    ] = None,
    device: Device = "auto",
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 7860,
) -> None:
    from ovseg.serving_api import demo as show

    warn_of_host(host)
    with suppress(Interrupted):  # told again once everything in hand is answered
        show(model or (), device, host, port, on_start=_say_address)


def _say_address(address: str) -> None:
    print_note(f"the page is at {address}; Ctrl-C ends it")
