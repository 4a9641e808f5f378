"""The commands that README, CONTRIBUTING and docs print, and whether programs would take them.

A block of commands is marked `sh`. It runs as it stands, unless a line before it says what it
needs: `<!-- needs: a benchmark -->`. Those, and commands in sentences, go through real parsers.
"""

import ast
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.conftest import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NEEDS = "<!-- needs: "
OPERATORS = {"&&", "||", "|", ";", ">", ">>", "<"}
_FENCE = re.compile(r"^```(\w*)$")
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


@dataclass(frozen=True)
class Block:
    """What stands between two fences.

    Attributes:
        page: that has it.
        language: as the fence says.
        needs: whether it is said to need something.
        text: the lines.
    """

    page: Path
    language: str
    needs: bool
    text: str

    @property
    def commands(self) -> list[list[str]]:
        """Words of each command; lines that end with a backslash go on."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [words for line in lines for words in split(line)]


def blocks(page: Path) -> list[Block]:
    """All blocks of a page, in order."""
    found, before, inside = [], "", None
    for line in page.read_text(encoding="utf-8").splitlines():
        if inside is None and (opened := _FENCE.match(line)):
            inside = (opened[1], before.startswith(NEEDS), [])
        elif inside is not None and line == "```":
            language, needs, lines = inside
            found.append(Block(page, language, needs, "\n".join(lines)))
            inside = None
        elif inside is not None:
            inside[2].append(line)
        before = line
    assert inside is None, f"{page}: a block does not end"
    return found


def prose(page: Path) -> str:
    """The page without its blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def inline(page: Path) -> list[str]:
    """What a page's sentences have between single backticks."""
    return _INLINE.findall(prose(page))


def split(line: str) -> Iterator[list[str]]:
    """The words of each command in a line, without comments and redirections; none of what a shell
    would not take."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;<>")
    lexer.whitespace_split = True
    words: list[str] = []
    redirected = False
    try:
        found = [*lexer, ";"]
    except ValueError:  # a quote does not end
        return
    for word in found:
        if word in OPERATORS:
            if words:
                yield words
            words, redirected = [], word in (">", ">>", "<")
        elif not redirected:
            words.append(word)


def program(words: Sequence[str]) -> tuple[str, list[str]]:
    """Which program a command starts, and with what; variables before it are left out."""
    rest = list(words)
    while rest and re.match(r"[A-Z_]+=", rest[0]):
        rest = rest[1:]
    name = rest[0].removeprefix(".venv/bin/") if rest else ""
    if name == "python" and rest[1:2] == ["-m"]:
        rest = rest[2:]
    elif name in ("python", "sh"):
        rest = rest[1:]
    elif name == "accelerate" and "ovseg_cli" in rest:
        rest = rest[rest.index("ovseg_cli") :]
    return (rest[0].removeprefix(".venv/bin/"), rest[1:]) if rest else ("", [])


class NotUnderstoodError(Exception):
    """A command that its program would not take."""


def check_ovseg(words: Sequence[str], whole: bool) -> None:
    """Parse arguments of `ovseg` as it does, and run nothing.

    Args:
        words: behind `ovseg`.
        whole: whether arguments that must be there must be there.
    """
    from ovseg_cli.app import app

    if words and words[0] in {name for each in app.params for name in each.opts}:
        return  # they act while they are parsed
    rest = [word for word in words if word != "..."]
    command, name, context = app, "ovseg", None
    try:
        while True:
            context = command.make_context(name, rest, parent=context)
            if not hasattr(command, "commands"):
                break
            rest = [*context._protected_args, *context.args]
            name, command, rest = command.resolve_command(context, rest)
        check_recipe(command.name, context.params)
    except Exception as error:
        helped = type(error).__name__ == "Exit"
        partly = type(error).__name__ in ("MissingParameter", "NoArgsIsHelpError")
        if not (helped or (partly and not whole)):
            raise NotUnderstoodError(f"ovseg {' '.join(words)}: {error}") from error


def check_recipe(command: str | None, given: Mapping[str, Any]) -> None:
    """Whether a recipe exists, and every key that is changed."""
    from ovseg.config.load import load_recipe
    from ovseg.data.build.request import load_request

    if command == "pretrain":
        load_recipe(given["recipe"], given["set_"] or ())
    elif command == "from":
        load_request(given["source"], given["set_"] or ())


def check_script(path: Path, words: Sequence[str]) -> None:
    """Whether a script of ours names every option that it is given."""
    if not path.is_file():
        raise NotUnderstoodError(f"there is no {path}")
    known = options_in(path)
    for word in words:
        option = word.partition("=")[0]
        if option.startswith("--") and option not in known:
            raise NotUnderstoodError(f"{path}: names no {option}")


@cache
def options_in(path: Path) -> frozenset[str]:
    """Texts in a script that look like options."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    texts = (each.value for each in ast.walk(tree) if isinstance(each, ast.Constant))
    return frozenset({"--help", *(t for t in texts if isinstance(t, str) and t.startswith("--"))})


def check_pytest(words: Sequence[str]) -> None:
    """Whether the files exist that pytest is given."""
    for word in words:
        if word.startswith("tests/") and not (ROOT / word).exists():
            raise NotUnderstoodError(f"pytest: there is no {word}")


def check_pip(words: Sequence[str]) -> None:
    """Whether the extras exist that are installed."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for extras in re.findall(r"(?:ovseg|\.)\[([\w,-]+)\]", " ".join(words)):
        for extra in extras.split(","):
            if not re.search(rf"^{extra} = \[", text, re.M):
                raise NotUnderstoodError(f"there is no extra {extra}")


def check_curl(words: Sequence[str]) -> None:
    """Whether the service has the address and the fields."""
    from ovseg.serving.question import Options

    (address,) = (word for word in words if word.startswith("http"))
    path, _, query = address.partition("8000")[2].partition("?")
    given = [*query.split("&"), *(words[i + 1] for i, word in enumerate(words) if word == "-F")]
    fields = {field.partition("=")[0] for field in given if field} - {"image"}
    if path not in ("/segment", "/health", "/metrics") or not fields <= set(Options.model_fields):
        raise NotUnderstoodError(f"the service takes no {address} with {fields}")


def check_setup(words: Sequence[str]) -> None:
    """Whether setup.sh names what it is given."""
    text = (ROOT / "setup.sh").read_text(encoding="utf-8")
    if unknown := [word for word in words if word not in text]:
        raise NotUnderstoodError(f"setup.sh: names no {' '.join(unknown)}")


def check(words: Sequence[str], whole: bool = True) -> bool:
    """Whether the program is one that can be asked, after it was.

    Raises:
        NotUnderstoodError: it would not take this.
    """
    name, rest = program(words)
    askable: dict[str, Callable[[], Any]] = {
        "ovseg": lambda: check_ovseg(rest, whole),
        "ovseg_cli": lambda: check_ovseg(rest, whole),
        "pytest": lambda: check_pytest(rest),
        "pip": lambda: check_pip(rest),
        "curl": lambda: check_curl(rest),
        "setup.sh": lambda: check_setup(rest),
    }
    if name in askable:
        askable[name]()
    elif name.endswith(".py"):
        check_script(ROOT / name, rest)
    elif name == ".ci/run":
        assert (ROOT / name).is_file()
    elif name.startswith(("tools.", "tests.")):
        check_script(ROOT / f"{name.replace('.', '/')}.py", rest)
    else:
        return False
    return True


def options_within(texts: Sequence[str]) -> Iterator[str]:
    """The options that texts name."""
    for text in texts:
        yield from re.findall(r"(?<![\w-])--[a-z][\w-]*", text)


def check_option(option: str) -> None:
    """Whether any command, or any script of ours, has an option.

    Raises:
        NotUnderstoodError: none has.
    """
    if option not in known_options():
        raise NotUnderstoodError(f"nothing has the option {option}")


@cache
def known_options() -> frozenset[str]:
    """All options of `ovseg` and of our scripts."""
    from ovseg_cli.app import app

    def of(command: Any) -> Iterator[str]:
        for each in command.params:
            yield from (*each.opts, *each.secondary_opts)
        for each in getattr(command, "commands", {}).values():
            yield from of(each)

    folders = (ROOT / "tools", ROOT / "tests" / "parity", ROOT / "tests" / "benchmarks")
    scripts = [path for folder in folders for path in folder.glob("*.py")]
    return frozenset({*of(app), *(option for path in scripts for option in options_in(path))})
