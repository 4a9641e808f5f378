"""What a run shows while it goes: lines of the log, trackers, overlays, scores between epochs."""

from pathlib import Path

import torch

from ovseg.config.dump import content_hash, to_toml, to_values
from ovseg.distributed import mean_over_processes
from ovseg.files import write_text
from ovseg.models.interface import ModelCard
from ovseg.models.ovsegmentor.predictor import Predictor
from ovseg.training.batch import Batch
from ovseg.training.flops import batch_lengths, pair_cost, peak_flops
from ovseg.training.meters import Meter, assignment_entropy, groups_used, memory_in_use
from ovseg.training.observer import Evaluate, Observer
from ovseg.training.overlays import draw_overlays
from ovseg.training.records import JsonLines, Record, Tracker
from ovseg.training.trainee import Trainee
from ovseg.training.troubles import Troubles


class Watch:
    """Measures and shows a run; all processes have one, and only the first one's is seen.

    Args:
        output: the run's folder.
        first: steps that were done before.

    Raises:
        DataError: the folder cannot be written.
    """

    def __init__(
        self, trainee: Trainee, output: Path, troubles: Troubles, observer: Observer, first: int
    ) -> None:
        self.trainee = trainee
        self.output = output
        self.troubles = troubles
        self.observer = observer
        self.meter = Meter()
        rank = trainee.group.rank
        self.is_first = rank == 0
        self._log = JsonLines(output / f"log{f'.{rank}' if rank else ''}.jsonl", first)
        wanted = trainee.recipe.train.tracker if self.is_first else "none"
        values = to_values(trainee.recipe)
        self.tracker = Tracker(wanted, output, output.name, values)
        if self.is_first:
            write_text(output / "recipe.toml", to_toml(trainee.recipe))

    def count(self, parts: list[Batch]) -> None:
        """Note a step's pairs and FLOPs."""
        recipe = self.trainee.recipe
        for part in parts:
            cost = pair_cost(
                recipe.model,
                batch_lengths(part),
                recipe.train.freeze_text,
                recipe.loss.mask.enabled,
                len(parts),
            )
            self.meter.pairs += len(part)
            self.meter.flops += cost.total * len(part)

    def record(self, done: int) -> Record:
        """The line of the log after `done` steps; every process must ask for it."""
        trainee, meter = self.trainee, self.meter
        means = mean_over_processes(meter.means())
        total, contrastive, entity, mask, norm = (_finite(value) for value in means.tolist())
        seconds, assignment = meter.seconds, meter.assignment
        assert assignment is not None
        device = trainee.device
        peak = peak_flops(torch.cuda.get_device_name(device) if device.type == "cuda" else "")
        self.meter = Meter()
        return Record(
            step=done,
            epoch=done / trainee.epoch_steps,
            loss=total,
            contrastive=contrastive,
            entity=entity,
            mask=mask,
            scale=float(trainee.model.scale.detach()),
            gradient_norm=norm,
            learning_rate=trainee.schedule(done - 1),
            images_per_second=meter.pairs * trainee.group.size / seconds,
            stall=meter.waited / seconds,
            mfu=meter.flops / seconds / peak if peak else None,
            memory=memory_in_use(device),
            assignment_entropy=float(assignment_entropy(assignment)),
            groups_used=float(groups_used(assignment)),
            skipped=self.troubles.skipped,
            unreadable=sum(self.troubles.unreadable.values()),
        )

    def write(self, record: Record) -> None:
        """Add a line to the log, in the first process."""
        if self.is_first:
            self._log.append(record.__dict__)
            self.tracker.log(record)
            self.observer.logged(record)

    def draw(self, done: int) -> None:
        """Draw overlays, in the first process."""
        trainee = self.trainee
        if not self.is_first or trainee.source.index is None:
            return
        path = self.output / "overlays" / f"step-{done:08d}.png"
        with trainee.aside():
            size = trainee.recipe.model.image.image_size
            draw_overlays(trainee.model, trainee.source.index, path, size)

    def evaluate(self, evaluate: Evaluate, done: int) -> float:
        """Score the model as it is; every process must ask for it."""
        with self.trainee.aside():
            score = evaluate(self._predictor(done))
        if self.is_first:
            self.tracker.score("mIoU", score, done)
            self.observer.evaluated(done, score)
        return score

    def _predictor(self, done: int) -> Predictor:
        """The model as it is, behind the interface of inference."""
        trainee = self.trainee
        key = f"{content_hash(trainee.recipe)}-{done}"
        card = ModelCard(f"{self.output}@{done}", "ovsegmentor", "in training", "", key)
        return Predictor(trainee.model, trainee.texts.tokenizer, card)


def _finite(value: float) -> float | None:
    return value if value == value and abs(value) != float("inf") else None
