"""Any English text to what captions say of it, by a text encoder in ONNX Runtime.

Letters: L token, E width of captions' embeddings.

all-MiniLM-L6-v2 in eight bits and the projection that was learned from captions, made by
`tools/make_starter_phrases.py`. Both runtimes of the starter ask it, so that they find the same.
"""

import gzip
import zlib
from functools import cached_property
from importlib.abc import Traversable
from importlib.resources import as_file

import numpy as np
import numpy.typing as npt

from ovseg.documents import TooLongError, read_stream
from ovseg.errors import ModelError
from ovseg.models.onnx_file import check_onnx
from ovseg.models.runtimes import Runtime, open_graph
from ovseg.models.starter.wordpiece import WordPieces

GRAPH = "phrases.onnx"
VOCABULARY = "phrases.txt.gz"
TEMPLATE = "a photo of a {}."
_MOST_BYTES = 4 << 20  # of a vocabulary, unpacked; ours takes 0.2 MB


class PhraseEncoder:
    """Embeds phrases; opened when first asked.

    Args:
        folder: where its two files are.
    """

    def __init__(self, folder: Traversable) -> None:
        self._folder = folder

    @property
    def is_there(self) -> bool:
        """Whether the folder has one; those of older exports have not."""
        return self._folder.joinpath(GRAPH).is_file()

    def __call__(self, phrase: str) -> npt.NDArray[np.float32]:
        """What positions are compared with, float32 [E], of unit length.

        Raises:
            ModelError: its files are damaged.
        """
        ids = np.array([self.pieces(TEMPLATE.format(phrase))], np.int64)  # [1, L]
        inputs: dict[str, npt.NDArray] = {
            "ids": ids,
            "mask": np.ones_like(ids),
            "shares": np.ones((1, 1), np.float32),
        }
        (found,) = self._graph.run(("text_embedding",), inputs)
        return found[0]

    @cached_property
    def _graph(self) -> Runtime:
        with as_file(self._folder.joinpath(GRAPH)) as path:
            check_onnx(path)
            return open_graph(path, "cpu")

    @cached_property
    def pieces(self) -> WordPieces:
        """The tokens of texts."""
        path = self._folder.joinpath(VOCABULARY)
        try:
            with path.open("rb") as packed, gzip.GzipFile(fileobj=packed) as stream:
                tokens = read_stream(stream, _MOST_BYTES).decode().split("\n")
            return WordPieces(tokens)
        except (OSError, EOFError, zlib.error, ValueError, TooLongError) as error:
            raise ModelError(f"{path}: cannot be read ({error}): export the model again") from error
