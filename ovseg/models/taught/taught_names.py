"""Which phrases name taught classes.

Letters: K taught class, Q phrase.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt


class TaughtNames:
    """Finds taught classes by their phrases.

    Args:
        classes: the phrases of each class, K entries.
        stuff: places of those whose own words do not count.
    """

    def __init__(self, classes: Sequence[Sequence[str]], stuff: Sequence[int] = ()) -> None:
        self.classes = classes
        self.stuff = stuff
        self._places = {_spelled(p): place for place, each in enumerate(classes) for p in each}

    def named(self, phrases: Sequence[str]) -> npt.NDArray[np.float32]:
        """Which class each phrase names, float32 [Q, K]; a row of zeros for none."""
        chosen = np.zeros((len(phrases), len(self.classes)), np.float32)
        for row, phrase in enumerate(phrases):
            if (place := self._places.get(_spelled(phrase))) is not None:
                chosen[row, place] = 1
        return chosen

    def wordless(self, phrases: Sequence[str]) -> npt.NDArray[np.float32]:
        """What the base's embedding of each phrase is multiplied by, 0 or 1, float32 [Q, 1]."""
        chosen = self.named(phrases)[:, list(self.stuff)].any(axis=1, keepdims=True)
        return 1 - chosen.astype(np.float32)

    def others(self, phrases: Iterable[str]) -> list[str]:
        """The phrases that name none."""
        if not self._places:
            return list(phrases)
        return [phrase for phrase in phrases if _spelled(phrase) not in self._places]

    def beside(self, words: Iterable[str]) -> list[str]:
        """Words and the phrases of all classes, in alphabetical order."""
        return sorted({*words, *(phrase for each in self.classes for phrase in each)})


def _spelled(phrase: str) -> str:
    """A phrase as it is compared: no matter the case, or a hyphen or underscore for a space."""
    return " ".join(phrase.casefold().replace("_", " ").replace("-", " ").split())
