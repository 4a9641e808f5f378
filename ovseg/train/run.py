"""A training run from its recipe to its last checkpoint."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from ovseg.config.dump import content_hash, to_toml, to_values
from ovseg.config.schema import Recipe
from ovseg.files import write_text
from ovseg.model.interface import ModelCard
from ovseg.model.ovsegmentor import OVSegmentor
from ovseg.model.predictor import Predictor
from ovseg.parallel import HostChannel, Processes, leave_processes, mean_over_processes, processes
from ovseg.train import setup
from ovseg.train.batch import Batch
from ovseg.train.feed.loader import load_batches
from ovseg.train.flops import batch_lengths, pair_cost, peak_flops
from ovseg.train.loss_scale import LossScale
from ovseg.train.meters import Meter, assignment_entropy, groups_used, memory_in_use
from ovseg.train.momentum import MomentumEncoder
from ovseg.train.noise import noise_state, set_noise_state
from ovseg.train.optimizer import Updater, build_optimizer
from ovseg.train.overlays import draw_overlays
from ovseg.train.records import JsonLines, Record, Tracker
from ovseg.train.saving import Saver
from ovseg.train.schedule import schedule_of
from ovseg.train.step import TrainingStep
from ovseg.train.stopping import StopRequest
from ovseg.train.synchronised import synchronise_batch_norm
from ovseg.train.troubles import Troubles

_log = logging.getLogger(__name__)

Evaluate = Callable[[Predictor], float]
"""Zero-shot mIoU of a model, 0..1; called in every process."""


class Observer:
    """Who wants to know how a run goes; every method is called in the first process only."""

    def started(self, first: int, last: int) -> None:
        """Training begins after step `first` and goes to step `last`."""

    def stepped(self, step: int) -> None:
        """A step was done; its results may still be on their way."""

    def logged(self, record: Record) -> None:
        """A line of the log was written."""

    def saved(self, path: Path) -> None:
        """A checkpoint is complete."""

    def evaluated(self, step: int, score: float) -> None:
        """The model was evaluated: its mIoU, 0..1."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        steps: optimizer steps done in all.
        signal: what asked it to stop early; 0 if nothing did.
        best: highest mIoU, if it was evaluated.
        skipped, unreadable: steps that were not finite, samples that could not be read.
    """

    steps: int
    signal: int
    best: float | None
    skipped: int
    unreadable: int
    output: Path


def train(
    recipe: Recipe,
    output: Path,
    resume: Literal["never", "auto"] = "never",
    evaluate: Evaluate | None = None,
    observer: Observer | None = None,
) -> Outcome:
    """Train what a recipe describes; with a launcher's processes if there are any.

    Args:
        output: the run's folder: checkpoints, log, overlays.
        resume: "auto" goes on from the newest complete checkpoint in it; "never" wants none there.
        evaluate: called after each epoch; the best checkpoint is kept by its result.
        observer: told what happens.

    Raises:
        RecipeError: the recipe cannot be run, or differs from the checkpoint's.
        DataError: data or checkpoints are missing, damaged or cannot be written.
    """
    group = processes()
    try:
        with StopRequest() as stop:
            run = Run(recipe, output, group, resume, evaluate, observer or Observer())
            return run.loop(stop)
    finally:
        if group.size > 1:
            leave_processes()


class Run:
    """Everything of a run; `loop` is the training."""

    def __init__(
        self,
        recipe: Recipe,
        output: Path,
        group: Processes,
        resume: str,
        evaluate: Evaluate | None,
        observer: Observer,
    ) -> None:
        self.group = group
        self.output = output
        self.observer = observer
        self.evaluate = evaluate
        self.channel = HostChannel(group.size)
        self.device = _device(group)
        self.source = setup.open_source(recipe)
        self.share = setup.share_of(recipe, group.rank, group.size)
        self.epoch_steps = self.source.steps_per_epoch(recipe, self.share)
        self.schedule = schedule_of(recipe.schedule, self.epoch_steps, self.share.total)
        self.texts = setup.build_texts(recipe, self.source)
        model = setup.build_model(recipe)
        # Checkpoints carry the text encoder's sizes; so does the recipe they are compared with.
        self.recipe = recipe.model_copy(
            update={"model": setup.with_text_sizes(recipe.model, model)}
        )
        self.model = self._prepare(model)
        self.momentum = self._momentum()
        self.updater = self._updater()
        self.loss_scale = LossScale(recipe.train.precision == "fp16", self.device)
        self.step = TrainingStep(
            self.model,
            None if self.momentum is None else self.momentum.encoder,
            setup.objective_of(recipe.loss),
            setup.PRECISIONS[recipe.train.precision],
            group.rank,
            group.size,
        )
        self.troubles = Troubles(
            output, group.rank, recipe.train.max_skipped, recipe.data.max_bad_samples
        )
        self.saver = Saver(self)
        self.first = self.saver.resume(resume)
        self.log = JsonLines(output / f"log{_suffix(group)}.jsonl", self.first)
        self.maker = setup.build_maker(recipe, self.source, self.texts)
        self.meter = Meter()

    def loop(self, stop: StopRequest) -> Outcome:
        """Train until the schedule's end or until asked to stop."""
        self._begin()
        recipe = self.recipe.train
        batches = self._batches()
        done, signal = self.first, 0
        while done < self.schedule.steps and not signal:
            self._train_step(done, batches)
            done += 1
            if self.group.rank == 0:
                self.observer.stepped(done)
            ends_epoch = done % self.epoch_steps == 0
            if done % recipe.log_every == 0 or done == self.schedule.steps:
                self._log(done)
            if recipe.overlays_every and done % recipe.overlays_every == 0:
                self._draw(done)
            # Asked through the host, so that all processes stop at one step and no device waits.
            signal = self.channel.highest(stop.signal)
            if ends_epoch or done == self.schedule.steps:
                self._evaluate(done)
            due = recipe.save_every and done % recipe.save_every == 0
            if signal or ends_epoch or due or done == self.schedule.steps:
                self.troubles.settle()
                self.saver.save(done)
        return self._end(done, signal)

    def _train_step(self, number: int, batches: Iterator[Batch]) -> None:
        started = time.perf_counter()
        parts = [next(batches) for _ in range(self.share.parts)]
        self.meter.waited += time.perf_counter() - started
        self.troubles.read(parts)
        self.updater.begin()
        scale = self.loss_scale.value
        losses = self.step(
            [part.to(self.device) for part in parts], 1.0 if scale is None else scale
        )
        norm = self.updater.apply(losses.total, self.schedule(number), scale)
        self.loss_scale.update(norm)
        if self.momentum is not None:
            self.momentum.follow()
        self.meter.add(losses, norm)
        self.troubles.stepped(number + 1, norm, parts)
        self._count(parts)

    def _count(self, parts: list[Batch]) -> None:
        mask = self.recipe.loss.mask.enabled
        for part in parts:
            cost = pair_cost(
                self.recipe.model,
                batch_lengths(part),
                self.recipe.train.freeze_text,
                mask,
                len(parts),
            )
            self.meter.pairs += len(part)
            self.meter.flops += cost.total * len(part)

    def _log(self, done: int) -> None:
        record = self._record(done)
        self.meter = Meter()
        self.troubles.settle()
        if self.group.rank == 0:
            self.log.append(record.__dict__)
            self.tracker.log(record)
            self.observer.logged(record)

    def _record(self, done: int) -> Record:
        means = mean_over_processes(self.meter.means())
        total, contrastive, entity, mask, norm = (_finite(value) for value in means.tolist())
        seconds, image = self.meter.seconds, self.step.last_image
        assert image is not None
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else ""
        peak = peak_flops(name)
        return Record(
            step=done,
            epoch=done / self.epoch_steps,
            loss=total,
            contrastive=contrastive,
            entity=entity,
            mask=mask,
            scale=float(self.model.scale.detach()),
            gradient_norm=norm,
            learning_rate=self.schedule(done - 1),
            images_per_second=self.meter.pairs * self.group.size / seconds,
            stall=self.meter.waited / seconds,
            mfu=self.meter.flops / seconds / peak if peak else None,
            memory=memory_in_use(self.device),
            assignment_entropy=float(assignment_entropy(image)),
            groups_used=float(groups_used(image)),
            skipped=self.troubles.skipped,
            unreadable=sum(self.troubles.unreadable.values()),
        )

    def _begin(self) -> None:
        torch.manual_seed(self.recipe.train.seed + 1 + self.group.rank)  # unlike each other's noise
        self.saver.restore_noise()
        self.tracker = self._tracker()
        if self.group.rank == 0:
            write_text(self.output / "recipe.toml", to_toml(self.recipe))
            self.observer.started(self.first, self.schedule.steps)

    def _end(self, done: int, signal: int) -> Outcome:
        self.tracker.close()
        if self.group.rank == 0 and not signal:
            self.saver.write_model(self.output / "last.safetensors")
        self.troubles.summarise()
        return Outcome(
            steps=done,
            signal=signal,
            best=self.saver.best,
            skipped=self.troubles.skipped,
            unreadable=sum(self.troubles.unreadable.values()),
            output=self.output,
        )

    def _evaluate(self, done: int) -> None:
        if self.evaluate is None:
            return
        with self._aside():
            score = self.evaluate(self.predictor(done))
        if self.group.rank == 0:
            self.tracker.score("mIoU", score, done)
            self.observer.evaluated(done, score)
        self.saver.keep_best(done, score)

    def _draw(self, done: int) -> None:
        if self.group.rank != 0 or self.source.index is None:
            return
        with self._aside():
            path = self.output / "overlays" / f"step-{done:08d}.png"
            draw_overlays(self.model, self.source.index, path, self.recipe.model.image.image_size)

    def predictor(self, done: int) -> Predictor:
        """The model as it is, behind the interface of inference."""
        key = f"{content_hash(self.recipe)}-{done}"
        card = ModelCard(f"{self.output}@{done}", "ovsegmentor", "in training", "", key)
        return Predictor(self.model, self.texts.tokenizer, card)

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """Evaluation mode; afterwards everything, random numbers too, is as before."""
        state = noise_state(self.device)
        self.model.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self._train_mode(self.model)
            set_noise_state(self.device, state)

    def _train_mode(self, model: OVSegmentor) -> None:
        model.train()
        if self.recipe.train.freeze_text:
            model.text_encoder.eval()

    def _prepare(self, model: OVSegmentor) -> OVSegmentor:
        if self.recipe.train.freeze_text:
            model.text_encoder.requires_grad_(False)
        if self.group.size > 1:
            synchronise_batch_norm(model)
        model = model.to(self.device)
        self._train_mode(model)
        return model

    def _momentum(self) -> MomentumEncoder | None:
        mask = self.recipe.loss.mask
        return MomentumEncoder(self.model.image_encoder, mask.momentum) if mask.enabled else None

    def _updater(self) -> Updater:
        if self.recipe.train.compile:
            self.model.image_encoder.compile()
            self.model.text_encoder.compile()
        config = self.recipe.optimizer
        optimizer = build_optimizer(self.model, config)
        return Updater(self.model, optimizer, config.clip_norm, self.group.size)

    def _tracker(self) -> Tracker:
        wanted = self.recipe.train.tracker if self.group.rank == 0 else "none"
        return Tracker(
            wanted, self.output / "tensorboard", self.output.name, to_values(self.recipe)
        )

    def _batches(self) -> Iterator[Batch]:
        sampler = self.source.sampler(self.recipe, self.share, self.first, self.schedule.steps)
        return load_batches(self.maker, sampler, self.recipe.data.workers, self.device)


def _device(group: Processes) -> torch.device:
    if group.device is not None:
        return torch.device(group.device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _suffix(group: Processes) -> str:
    return "" if group.rank == 0 else f".{group.rank}"


def _finite(value: float) -> float | None:
    return value if value == value and abs(value) != float("inf") else None
