"""Entry point: runs a command and turns errors into one line and an exit code."""

import os
import sys

from ovseg.errors import OvsegError, PeerError, RecipeError
from ovseg_cli.console import OutputError, guarded_output, print_error, silence_output
from ovseg_cli.launching import leave


def main() -> None:
    """Run `ovseg` with the process's arguments and exit with its code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run `ovseg` with these arguments and return the exit code.

    0 success; 1 data and run time; 2 usage and recipes; 130 interrupted. With OVSEG_DEBUG=1 the
    exception itself comes through.
    """
    try:
        with guarded_output():
            return _run_command(arguments, debug=os.environ.get("OVSEG_DEBUG") == "1")
    except BrokenPipeError:  # the reader of our output has left (`ovseg ... | head`)
        silence_output()
        return 141
    except OutputError as error:
        silence_output()
        print_error(str(error))
        return leave(1, agreed=False)


def _run_command(arguments: list[str], debug: bool) -> int:
    from ovseg_cli.app import app

    try:
        app(args=arguments, prog_name="ovseg")
    except SystemExit as stop:  # typer's own way out, after help, success and usage errors alike
        return stop.code if isinstance(stop.code, int) else 1
    except KeyboardInterrupt:
        print_error("interrupted")
        return 130
    except (BrokenPipeError, OutputError):
        raise
    except OvsegError as error:
        if debug:
            raise
        if not isinstance(error, PeerError):  # the process that failed says it
            for problem in error.problems if isinstance(error, RecipeError) else [str(error)]:
                print_error(problem)
        return leave(error.exit_code, agreed=error.shared)
    except Exception as error:
        if debug:
            raise
        print_error(
            f"internal error: {type(error).__name__}: {error} "
            "(a fault of ovseg: run again with OVSEG_DEBUG=1 and report the traceback)"
        )
        return 1
    return 0


if __name__ == "__main__":
    main()
