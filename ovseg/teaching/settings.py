"""The settings of a teaching."""

from dataclasses import dataclass

from ovseg.errors import UsageError


@dataclass(frozen=True)
class TeachingSettings:
    """How classes are taught.

    Attributes:
        folds: parts of the photos, each held out once to fit the mixture and to score.
        shrinkage: share of an even covariance in that of the closed form, 0..1.
        hidden: units of the position head; 0 for the closed form alone.
        components: directions of what is seen that the position head reads.
        steps, batch, learning_rate, weight_decay, dropout: of its training; half of the steps
            where that is as good on photos that were held out.
        balance: the power of how rare a class is by which the head favours it.
        most: positions in memory at once for the position head.
        lora: rank of updates of the tower; 0 for the tower as it is.
        lora_steps, lora_batch, lora_rate: of their training: steps, crops a step, learning rate.
        seed: of folds and of the training.
    """

    folds: int = 3
    shrinkage: float = 0.3
    hidden: int = 256
    components: int = 192
    steps: int = 300
    batch: int = 1024
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    dropout: float = 0.3
    balance: float = 0.5
    most: int = 300_000
    lora: int = 0
    lora_steps: int = 60
    lora_batch: int = 4
    lora_rate: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.folds < 2 or min(self.hidden, self.steps, self.lora) < 0:
            raise UsageError("teaching needs two folds at least, and no negative sizes")
        if self.lora and min(self.lora_steps, self.lora_batch) < 1:
            raise UsageError("updates of the tower need a step at least, and a crop in each")
        if not 0 < self.shrinkage <= 1:
            raise UsageError(f"shrinkage {self.shrinkage:g}: must be above 0 and at most 1")
