"""The errors ovseg raises on purpose.

Each message is one sentence or two: what is wrong, where, and what to do next. The command line
turns them into one line and `exit_code`; anything else that escapes is a bug.
"""


class OvsegError(Exception):
    """Base of every error of ours."""

    exit_code = 1
    shared = False
    """Whether all processes of a run end with it, so that nobody waits for this one."""


class PeerError(OvsegError):
    """Another process of the run has failed; its own error, with this message, tells why."""

    shared = True

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class UsageError(OvsegError):
    """The request itself makes no sense: a bad option, class list or recipe."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe or its overrides do not fit the schema; `problems` holds a sentence for each."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class DataError(OvsegError):
    """A file or folder is missing, damaged or not what it should be."""


class ModelError(OvsegError):
    """A checkpoint or model cannot be loaded or used."""


class DownloadError(OvsegError):
    """A remote file could not be fetched or does not match its checksum."""


class MissingDependencyError(OvsegError):
    """An optional package is needed and absent; the message holds the install command."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f'{purpose} needs {package}, which is not installed: pip install "ovseg[{extra}]"'
        )
        self._told = (package, extra, purpose)

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        """Lets it come back from a worker process."""
        return type(self), self._told
