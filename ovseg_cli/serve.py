"""`ovseg serve`: the model as a service on HTTP."""

from contextlib import suppress
from typing import Annotated

import typer

from ovseg_cli.asked import Device
from ovseg_cli.console import print_note, print_warning
from ovseg_cli.interrupts import Interrupted

EXAMPLES = """
Answer requests for segmentations over HTTP: POST /segment, with a page about it at /docs.

\b
Examples:
  ovseg serve
  ovseg serve --model deployed --port 9000 --max-requests 16
  curl -F image=@photo.jpg -F classes=cat,dog http://127.0.0.1:8000/segment

An answer is JSON, a label map (PNG) or COCO run lengths, as the field format or the header Accept
asks. /health says whether it works, /metrics has figures for Prometheus. Requests with the same
classes share a batch; those beyond --max-requests get 503 and when to try again. Ctrl-C and SIGTERM
let those in hand finish. Whoever reaches the address may use it: there is no password.
"""

Host = Annotated[
    str, typer.Option(help="Where to listen; anything but 127.0.0.1 lets other machines in.")
]


def serve(
    model: Annotated[str, typer.Option("--model", "-m", help="A model's name or file.")] = (
        "starter"
    ),
    device: Device = "auto",
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8000,
    max_requests: Annotated[
        int, typer.Option(help="In hand at once, waiting or computed.", min=1)
    ] = 64,
    batch_size: Annotated[int, typer.Option(help="Images worked on together.", min=1)] = 8,
    max_megabytes: Annotated[float, typer.Option(help="Size of a request.", min=0.001)] = 20,
    max_megapixels: Annotated[float, typer.Option(help="Size of an image.", min=0.001)] = 25,
    timeout: Annotated[float, typer.Option(help="Seconds for a request.", min=0.1)] = 60,
) -> None:
    from ovseg.serving.limits import MB, Limits
    from ovseg.serving_api import serve as answer

    warn_of_host(host)
    limits = Limits(
        requests=max_requests,
        together=batch_size,
        body=int(max_megabytes * MB),
        pixels=int(max_megapixels * MB),
        seconds=timeout,
    )
    with suppress(Interrupted):  # told again once everything in hand is answered
        answer(model, device, host, port, limits=limits, on_start=_say_address)


def warn_of_host(host: str) -> None:
    """Say what it means to listen for other machines."""
    from ovseg.serving.host import is_local

    if not is_local(host):
        print_warning(f"--host {host}: whoever reaches this machine may use it, without a password")


def _say_address(address: str) -> None:
    print_note(f"answering at {address}/segment; {address}/docs tells more; Ctrl-C ends it")
