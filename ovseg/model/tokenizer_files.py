"""A tokenizer as the few text files it consists of, so that a checkpoint can carry them."""

import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ovseg.errors import MissingDependencyError, ModelError

_MAX_BYTES = 32 << 20  # of one file; the largest common vocabularies take a few MB
# Read by transformers where present. Chat templates and code have no business here.
_KEPT = re.compile(
    r"(tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab)\.json|vocab\.txt|merges\.txt"
)


@dataclass(frozen=True)
class TokenizerFiles:
    """Files by name, and where they came from.

    Attributes:
        name: hub name or folder the tokenizer was read from.
        revision: of the hub's repository.
        files: text of each file by its bare name, such as `tokenizer.json`.
    """

    name: str
    revision: str
    files: Mapping[str, str] = field(repr=False)

    def to_json(self) -> str:
        """For a checkpoint's metadata."""
        values = {"name": self.name, "revision": self.revision, "files": dict(self.files)}
        return json.dumps(values, sort_keys=True)

    @staticmethod
    def from_json(text: str, where: str) -> "TokenizerFiles | None":
        """Read back what `to_json` wrote; None for an empty text.

        Raises:
            ModelError: the text is something else, or names files that are no tokenizer's.
        """
        if not text:
            return None
        try:
            values = json.loads(text)
            name, revision, files = values["name"], values["revision"], dict(values["files"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ModelError(f"{where}: its tokenizer is damaged") from None
        strange = [str(file) for file in files if not _KEPT.fullmatch(str(file))]
        if strange or not all(isinstance(file, str) for file in files.values()):
            raise ModelError(f"{where}: refused: {strange} have no place in a tokenizer")
        return TokenizerFiles(str(name), str(revision), files)


def collect_tokenizer_files(tokenizer: Any, name: str, revision: str = "main") -> TokenizerFiles:
    """The files that restore a transformers tokenizer.

    Args:
        tokenizer: of transformers, such as a `PreTrainedTokenizerFast`.
        name, revision: where it was loaded from, to be noted beside the files.
    """
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        found = {
            path.name: path.read_text(encoding="utf-8")
            for path in sorted(Path(folder).iterdir())
            if _KEPT.fullmatch(path.name) and path.stat().st_size <= _MAX_BYTES
        }
    return TokenizerFiles(name, revision, found)


def fetch_tokenizer_files(name: str, revision: str = "main") -> TokenizerFiles:
    """The files of a tokenizer on the hub, in its cache, or in a folder.

    Raises:
        ModelError: it is nowhere, with what to do instead.
        MissingDependencyError: transformers is not installed.
    """
    try:
        tokenizer = _auto_tokenizer().from_pretrained(
            name, revision=revision, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"tokenizer {name} cannot be loaded ({_first_line(error)}). Without a network, put "
            "its tokenizer.json and tokenizer_config.json into a folder and name that: "
            "--set model.text.tokenizer=FOLDER"
        ) from error
    return collect_tokenizer_files(tokenizer, name, revision)


def restore_tokenizer(files: TokenizerFiles) -> Any:
    """The transformers tokenizer that consists of these files; reaches no network, runs no code.

    Raises:
        ModelError: transformers makes nothing of them.
        MissingDependencyError: transformers is not installed.
    """
    auto = _auto_tokenizer()
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.files.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        try:
            return auto.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(
                f"the checkpoint's tokenizer ({files.name}) cannot be restored: "
                f"{_first_line(error)}"
            ) from error


def _auto_tokenizer() -> Any:
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise MissingDependencyError("transformers", "torch", "the tokenizer") from error
    return AutoTokenizer


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
