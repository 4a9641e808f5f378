"""Entry point: runs a command and turns errors into one line and an exit code."""

import os
import sys
from typing import Any

from ovseg_cli.interrupts import Interrupted, end, heed


def main() -> None:
    """Run `ovseg` with the process's arguments and exit with its code."""
    try:
        heed()
        code = run(sys.argv[1:])
    except Interrupted as stop:
        end(stop)
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run `ovseg` with these arguments and return the exit code.

    0 success; 1 data and run time; 2 usage and recipes. With OVSEG_DEBUG=1 the exception itself
    comes through. An interrupt always does; `main` ends with 130.
    """
    from ovseg_cli.console import OutputError, guarded_output, print_error, silence_output
    from ovseg_cli.launching import leave

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
    from ovseg.errors import OvsegError, PeerError, RecipeError
    from ovseg_cli.app import app
    from ovseg_cli.console import OutputError, print_error
    from ovseg_cli.launching import leave

    try:
        code = app(args=arguments, prog_name="ovseg", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except SystemExit as stop:  # of shell completion
        return stop.code if isinstance(stop.code, int) else 1
    except (BrokenPipeError, OutputError):
        raise
    except OvsegError as error:
        if debug:
            raise
        if not isinstance(error, PeerError):  # the process that failed says it
            for problem in error.problems if isinstance(error, RecipeError) else [str(error)]:
                print_error(problem)
        return leave(error.exit_code, agreed=error.shared)
    except BaseException as error:  # native code that gives up raises no Exception
        from ovseg.models.trial import is_panic

        if hasattr(error, "format_message"):  # the parser's: an option that there is not, and so on
            return _refuse(error)
        if debug or not (isinstance(error, Exception) or is_panic(error)):
            raise
        print_error(_said(error))
        return 1


def _refuse(error: Any) -> int:
    """Print what is wrong with the arguments, as all errors; the help where there are none."""
    from ovseg_cli.console import print_error

    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
    else:
        message = error.format_message().rstrip(".")
        hint = f" (see {context.command_path} --help)" if context is not None else ""
        print_error(f"{message[:1].lower()}{message[1:]}{hint}")
    return int(error.exit_code)


def _said(error: BaseException) -> str:
    """A line for what no command has told: the system's refusals by their names."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return (
        f"internal error: {type(error).__name__}: {error} "
        "(a fault of ovseg: run again with OVSEG_DEBUG=1 and report the traceback)"
    )


if __name__ == "__main__":
    main()
