"""The verbs that go on until they are stopped: a service, and a page in the browser."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ovseg.errors import MissingDependencyError

if TYPE_CHECKING:
    from ovseg.serving.limits import Limits


def serve(
    model: str | Path = "starter",
    device: str = "auto",
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    limits: "Limits | None" = None,
    on_start: Callable[[str], None] = lambda _: None,
) -> None:
    """Answer requests over HTTP until SIGINT or SIGTERM; what is in hand is answered first.

    `ovseg.serving.service.service` gives the application itself, for another ASGI server.

    Args:
        model: a model's name, checkpoint or exported folder.
        device: as torch names it, or `auto`.
        host, port: where to listen; a port of 0 takes one that is free.
        limits: how much is taken from strangers.
        on_start: called with the address when requests are answered.

    Raises:
        OvsegError: the model cannot be loaded, or nobody can listen there.
        MissingDependencyError: the extra `serve` is not installed.
    """
    try:
        from ovseg.serving.service import service
    except ImportError as error:
        raise MissingDependencyError(error.name or "fastapi", "serve", "ovseg serve") from error
    from ovseg.models.registry import load_model
    from ovseg.serving.host import run
    from ovseg.serving.limits import Limits

    bounds = limits or Limits()
    run(lambda: service(load_model(model, device), bounds), host, port, bounds.seconds, on_start)


def demo(
    models: Sequence[str] = (),
    device: str = "auto",
    host: str = "127.0.0.1",
    port: int = 7860,
    *,
    limits: "Limits | None" = None,
    on_start: Callable[[str], None] = lambda _: None,
) -> None:
    """Show a page on which photos are dropped and words are typed, until SIGINT or SIGTERM.

    Args:
        models: names or files to choose from; by default the built-in one and all that were
            downloaded.
        device, host, port, limits, on_start: as `serve` takes them.

    Raises:
        OvsegError: the first model cannot be loaded, or nobody can listen there.
        MissingDependencyError: the extra `demo` is not installed.
    """
    try:
        from ovseg.serving.demo import demo as page
        from ovseg.serving.demo import quiet_gradio

        quiet_gradio()
    except ImportError as error:
        raise MissingDependencyError(error.name or "gradio", "demo", "ovseg demo") from error
    from ovseg.models.catalogue import CATALOGUE
    from ovseg.models.registry import is_cached
    from ovseg.serving.host import run
    from ovseg.serving.limits import Limits

    bounds = limits or Limits()
    chosen = list(models) or [entry.name for entry in CATALOGUE if is_cached(entry)]
    run(lambda: page(chosen, device, bounds), host, port, bounds.seconds, on_start)
