"""A tokenizer from a foreign file, tried on the very texts by a process that may die of them.

A tokenizer's file holds regular expressions and rewriting rules: they can take for ever, fill the
memory or bring the library down, and none of that can be caught from within. What has passed here
does the same again in the process that wants it.
"""

import json
import subprocess
import sys
from collections.abc import Sequence

from ovseg.distributed import deaf_children
from ovseg.errors import ModelError

SECONDS = 15.0
"""For starting, reading the file and all texts; a large honest one needs three."""
MEMORY = 3 << 30
"""Bytes of address space, of which a process with this library takes one at once."""


def try_tokenizer(content: str, texts: Sequence[str], max_tokens: int, where: str) -> None:
    """Encode texts by the tokenizers library, elsewhere.

    Args:
        content: of `tokenizer.json`.
        texts: what will be encoded.
        max_tokens: at which each is cut.
        where: what to call the tokenizer in messages.

    Raises:
        ModelError: it is no tokenizer, takes too long or too much memory, or dies.
    """
    request = json.dumps({"content": content, "texts": list(texts), "max_tokens": max_tokens})
    command = [sys.executable, "-m", __name__]
    try:
        with deaf_children():
            child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        with child:
            try:
                told, _ = child.communicate(request.encode(), timeout=SECONDS)
            except BaseException:
                child.kill()
                raise
    except subprocess.TimeoutExpired:
        raise ModelError(f"{where}: refused: its tokenizer takes too long") from None
    if child.returncode:
        reason = told.decode("utf-8", "replace").strip() or "it brings the library down"
        raise ModelError(f"{where}: its tokenizer cannot be used: {reason}")


def is_panic(error: BaseException) -> bool:
    """Whether native code has given up, which is no Exception to Python."""
    return type(error).__name__ == "PanicException"


def _serve() -> None:
    """The child: end with 0, or with 1 and the reason."""
    from tokenizers import Tokenizer

    request = json.loads(sys.stdin.buffer.read())  # from our own parent
    _give_up_rights()
    try:
        tokenizer = Tokenizer.from_str(request["content"])
        tokenizer.no_padding()
        tokenizer.enable_truncation(request["max_tokens"])
        for text in request["texts"]:
            tokenizer.encode(text)
    except BaseException as error:  # a panic is no Exception
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        sys.stdout.buffer.write(first[:200].encode("utf-8", "backslashreplace"))
        sys.stdout.flush()
        raise SystemExit(1) from None


def _give_up_rights() -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    _serve()
