"""Texts to token ids, and a tokenizer as the few text files that a checkpoint carries.

Letters: B text, L token.
"""

import json
import logging
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ovseg.documents import Bounds, parse_object
from ovseg.errors import MissingDependencyError, ModelError
from ovseg.models.trial import is_panic, try_tokenizer

if TYPE_CHECKING:
    from torch import Tensor

_log = logging.getLogger(__name__)

_MAX_BYTES = 32 << 20  # of one file; the largest common vocabularies take a few MB
_BOUNDS = Bounds(size=3 * _MAX_BYTES, depth=4)
_CONFIG_BOUNDS = Bounds(size=4 << 20)
# Read by transformers where present. Chat templates and code have no business here.
_KEPT = re.compile(
    r"(tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab)\.json|vocab\.txt|merges\.txt"
)

# What of a configuration changes how texts are read; the rest names classes, files and code.
_CONFIGURED = re.compile(
    r"\w+_token|\w+_special_tokens|\w+_token_type_id|added_tokens_decoder|model_max_length"
    r"|(padding|truncation)_side|clean_up_tokenization_spaces|add_prefix_space|do_lower_case"
    r"|strip_accents|tokenize_chinese_chars|do_basic_tokenize|never_split|model_input_names"
)

CLIP_PREFIX = "clip:"
"""How names of open_clip's text towers begin, and of their tokenizers."""
BYTES = "bytes"
"""The tokenizer that needs no file, see `byte_tokenizer`."""
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
VOCABULARY_SIZE = len(SPECIAL_TOKENS) + 256


@dataclass(frozen=True)
class Tokens:
    """A batch of tokenised texts, padded to the longest of them.

    Attributes:
        ids: int64 [B, L].
        mask: True at tokens, False at padding, bool [B, L].
    """

    ids: "Tensor"
    mask: "Tensor"


class Tokenizer(Protocol):
    """What turns texts into tokens."""

    def __call__(self, texts: Sequence[str]) -> Tokens: ...


class HubTokenizer:
    """A tokenizer of transformers; texts longer than `max_tokens` are cut."""

    def __init__(self, tokenizer: Any, max_tokens: int) -> None:
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens

    def __call__(self, texts: Sequence[str]) -> Tokens:
        encoded = self.tokenizer(
            list(texts),
            padding="longest",
            truncation=True,
            max_length=self.max_tokens,
            return_tensors="pt",
        )
        return Tokens(ids=encoded["input_ids"], mask=encoded["attention_mask"].bool())


class ForeignTokenizer(HubTokenizer):
    """The tokenizer that a checkpoint brings: made when it is needed, and tried elsewhere first.

    Args:
        files: the checkpoint's.
        max_tokens: longer texts are cut.
        where: the checkpoint, for messages.
    """

    def __init__(self, files: "TokenizerFiles", max_tokens: int, where: str) -> None:
        self.files = files
        self.max_tokens = max_tokens
        self._where = where

    @cached_property
    def tokenizer(self) -> Any:
        """That of transformers."""
        return restore_tokenizer(self.files)

    def __call__(self, texts: Sequence[str]) -> Tokens:
        self._try(texts)
        try:
            return super().__call__(texts)
        except Exception as error:  # of transformers, where its settings do not go together
            raise ModelError(
                f"{self._where}: its tokenizer cannot be used: {_first_line(error)}"
            ) from error

    def _try(self, texts: Sequence[str]) -> None:
        content = self.files.files.get("tokenizer.json")
        if content is None:
            raise ModelError(f"{self._where}: it brings a tokenizer without tokenizer.json")
        try_tokenizer(content, texts, self.max_tokens, self._where)


class ClipTokenizer:
    """open_clip's tokenizer, without the padding that every text of the batch shares."""

    def __init__(self, tokenizer: Any, max_tokens: int) -> None:
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens

    def __call__(self, texts: Sequence[str]) -> Tokens:
        import torch

        length = min(self.max_tokens, self.tokenizer.context_length)
        ids = self.tokenizer(list(texts), context_length=length)  # [B, length]
        end = ids.argmax(dim=1)  # end of text has the highest id
        mask = torch.arange(ids.shape[1])[None] <= end[:, None]
        longest = int(end.max()) + 1
        return Tokens(ids=ids[:, :longest], mask=mask[:, :longest])


def load_tokenizer(encoder: str, revision: str = "main", max_tokens: int = 77) -> Tokenizer:
    """The tokenizer of a text encoder.

    Args:
        encoder: hub name, local folder, or "clip:ARCH/PRETRAINED".
        revision: of the hub's repository.
        max_tokens: longer texts are cut.

    Raises:
        ModelError: it is neither here nor reachable.
    """
    if encoder.startswith(CLIP_PREFIX):
        return _clip_tokenizer(encoder.removeprefix(CLIP_PREFIX).partition("/")[0], max_tokens)
    return HubTokenizer(restore_tokenizer(fetch_tokenizer_files(encoder, revision)), max_tokens)


def _clip_tokenizer(architecture: str, max_tokens: int) -> ClipTokenizer:
    try:
        import open_clip
    except ImportError as error:
        raise MissingDependencyError("open_clip", "torch", "CLIP text towers") from error
    return ClipTokenizer(open_clip.get_tokenizer(architecture), max_tokens)


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
        values = parse_object(text, f"{where}: its tokenizer is damaged", _BOUNDS, ModelError)
        try:
            name, revision, files = values["name"], values["revision"], dict(values["files"])
        except (ValueError, KeyError, TypeError):
            raise ModelError(f"{where}: its tokenizer is damaged") from None
        strange = [str(file) for file in files if not _KEPT.fullmatch(str(file))]
        if strange or not all(isinstance(file, str) for file in files.values()):
            raise ModelError(f"{where}: refused: {strange} have no place in a tokenizer")
        if any(len(file) > _MAX_BYTES for file in files.values()):
            raise ModelError(f"{where}: refused: its tokenizer is larger than any")
        return TokenizerFiles(str(name), str(revision), files)


def collect_tokenizer_files(tokenizer: Any, name: str, revision: str = "main") -> TokenizerFiles:
    """The files that restore a transformers tokenizer.

    Args:
        tokenizer: of transformers, such as a `PreTrainedTokenizerFast`.
        name, revision: where it was loaded from, to be noted beside the files.

    Raises:
        ModelError: it is one of the slow tokenizers, which consist of code.
    """
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        found = {
            path.name: path.read_text(encoding="utf-8")
            for path in sorted(Path(folder).iterdir())
            if _KEPT.fullmatch(path.name) and path.stat().st_size <= _MAX_BYTES
        }
    if "tokenizer.json" not in found:
        raise ModelError(f"tokenizer {name} has no tokenizer.json: only fast tokenizers are kept")
    found["tokenizer_config.json"] = _neutral(found.get("tokenizer_config.json", "{}"))
    return TokenizerFiles(name, revision, found)


def _neutral(config: str) -> str:
    """The configuration without names of classes: they differ between versions, or are code."""
    values = parse_object(config, "tokenizer_config.json", _CONFIG_BOUNDS, ModelError)
    kept = {key: value for key, value in values.items() if _CONFIGURED.fullmatch(key)}
    return json.dumps(kept | {"tokenizer_class": "PreTrainedTokenizerFast"}, sort_keys=True)


def fetch_tokenizer_files(name: str, revision: str = "main") -> TokenizerFiles:
    """The files of a tokenizer on the hub, in its cache, or in a folder; `bytes` is built in.

    Raises:
        ModelError: it is nowhere, with what to do instead.
        MissingDependencyError: transformers is not installed.
    """
    if name == BYTES:
        return collect_tokenizer_files(byte_tokenizer(), name, revision)
    try:
        tokenizer = _load(name, revision)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"tokenizer {name} cannot be loaded ({_first_line(error)}). Without a network, put "
            "its tokenizer.json and tokenizer_config.json into a folder and name that: "
            "--set model.text.tokenizer=FOLDER"
        ) from error
    return collect_tokenizer_files(tokenizer, name, revision)


def _load(name: str, revision: str) -> Any:
    """From a folder or the hub's cache if it is there; the hub is only asked for what is not."""
    auto = _transformers().AutoTokenizer
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": False}
    try:
        return auto.from_pretrained(name, local_files_only=True, **options)
    except (OSError, ValueError):
        if Path(name).exists() or os.environ.get("OVSEG_OFFLINE") == "1":
            raise
    _log.warning("fetching the tokenizer %s from the hub (a few MB)", name)
    return auto.from_pretrained(name, **options)


def restore_tokenizer(files: TokenizerFiles) -> Any:
    """The transformers tokenizer that consists of these files; reaches no network, runs no code.

    Raises:
        ModelError: transformers makes nothing of them.
        MissingDependencyError: transformers is not installed.
    """
    # One class for all: the file holds every rule of the tokenizer, whereas the class it was saved
    # by changes its name between versions of transformers.
    fast = _transformers().PreTrainedTokenizerFast
    if "tokenizer.json" in files.files:
        try_tokenizer(files.files["tokenizer.json"], (), 2, f"tokenizer {files.name}")
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.files.items():
            kept = _neutral(text) if name == "tokenizer_config.json" else text
            (Path(folder) / name).write_text(kept, encoding="utf-8")
        try:
            return fast.from_pretrained(folder, local_files_only=True)
        except BaseException as error:  # the tokenizers library raises bare ones, and panics
            if not (isinstance(error, Exception) or is_panic(error)):
                raise
            raise ModelError(
                f"the checkpoint's tokenizer ({files.name}) cannot be restored: "
                f"{_first_line(error)}"
            ) from error


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise MissingDependencyError("transformers", "torch", "the tokenizer") from error
    return transformers


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def byte_tokenizer() -> Any:
    """A tokenizer that needs no file, as one of transformers: a token for each byte of UTF-8.

    It has `VOCABULARY_SIZE` ids, BERT's special tokens first, and serves models trained from random
    weights, for which no vocabulary was ever learned.
    """
    try:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
        from transformers import PreTrainedTokenizerFast
    except ImportError as error:
        raise MissingDependencyError("transformers", "torch", "the tokenizer") from error
    tokens = [*SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
