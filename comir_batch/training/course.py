"""The steps of a training, and what is validated and written between them; stopped at any step, it goes on."""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch

from comir_batch.core.errors import ConfigError
from comir_batch.representation.device import resolve_device
from comir_batch.training.batches import BatchSource
from comir_batch.training.checkpoint import Checkpoint, read_record
from comir_batch.training.history import History
from comir_batch.training.learner import Learner, require_compiler
from comir_batch.training.split import require_region
from comir_batch.training.validate import Validator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from torch import Tensor

    from comir_batch.execution.stop import StopRequest
    from comir_batch.representation.network import DenseUNet
    from comir_batch.training.config import TrainConfig
    from comir_batch.training.lesson import Lesson
    from comir_batch.training.validate import Validation

# What a result does not depend on, so that a training may be resumed with another value.
# The device is told as it is found.
REVISION = 1
"""Of the program: goes up whenever the same pairs and settings come to other weights than before."""
_FREE = {"loaders", "checkpoint_minutes", "execution", "device"}
_RECENT = 50


def require_able(config: TrainConfig, checkpoint: Path | None = None) -> None:
    """Refuse what would stop a training once its slides are prepared, and can be told before.

    Parameters
    ----------
    config : TrainConfig
        Settings.
    checkpoint : Path, optional
        What it shall go on from, if that is there.

    Raises
    ------
    ConfigError
        If the region is none, there is no compiler where one is asked for, or the checkpoint is of other settings.
    ModelError
        If there is no such device.
    """
    resolve_device(config.device)
    require_region(config.region)
    if config.compile:
        require_compiler()
    if checkpoint is not None and checkpoint.exists():
        _require_same_terms(read_record(checkpoint)["identity"], _terms(config))


def learn(
    lesson: Lesson, config: TrainConfig, checkpoint: Path, stop: StopRequest, say: Callable[[str], None]
) -> tuple[History, dict[str, DenseUNet]]:
    """Learn to the end; return what happened, and the best networks by modality.

    Parameters
    ----------
    lesson : Lesson
        What to learn from.
    config : TrainConfig
        How.
    checkpoint : Path
        Written now and then, and when it is stopped; if it is there, learning goes on from it, to the same result.
    stop : StopRequest
        Looked at after every step.
    say : callable
        Told in a sentence how each validation went.

    Raises
    ------
    ConfigError
        If the checkpoint is of other settings, slides or device, or the loss is not finite any more.
    StoppedError
        If it was asked to stop.
    """
    with _repeatable(config):
        course = _Course(config, lesson, checkpoint)
        if checkpoint.exists():
            course.resume(Checkpoint.load(checkpoint))
        return course.run(stop, say)


@contextmanager
def _repeatable(config: TrainConfig) -> Iterator[None]:
    """Fix torch's threads and cuDNN's choice of algorithms; leave them and its chance as they were afterwards."""
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng())
        stack.enter_context(torch.backends.cudnn.flags(deterministic=True, benchmark=False))
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(config.threads)
        yield


class _Course:
    def __init__(self, config: TrainConfig, lesson: Lesson, checkpoint: Path) -> None:
        self._config, self._lesson, self._checkpoint = config, lesson, checkpoint
        self._device = resolve_device(config.device)
        self._learner = Learner(lesson.modalities, config, self._device)
        self._history, self._best = History(), self._learner.average
        self._began = self._saved = time.monotonic()
        self._validator = Validator(
            lesson.parts.validation,
            lesson.modalities,
            lesson.data.mpp,
            count=config.validation_fields,
            side=config.crop,
            seed=config.seed,
        )

    def resume(self, earlier: Checkpoint) -> None:
        """Go on from a checkpoint."""
        _require_same(earlier.record["identity"], identity(self._config, self._lesson))
        self._learner.resume(earlier.tensors)
        self._history = History.from_json(earlier.record["history"])
        self._best = _part(earlier.tensors, "best.")

    def run(self, stop: StopRequest, say: Callable[[str], None]) -> tuple[History, dict[str, DenseUNet]]:
        """Learn until it is over."""
        lesson, config, losses = self._lesson, self._config, self._history.losses
        if self._validator.side < config.crop:
            say(f"validated on crops of {self._validator.side} pixels for want of room; raise validation for more")
        crops = BatchSource(lesson.parts.training, lesson.modalities, lesson.stained, lesson.data.mpp, config)
        for number, batch in crops.ahead(len(losses), len(losses) if self._over else config.steps):
            losses.append(self._learner.step(batch, number))
            self._validate(number + 1, say)
            if self._over:
                break
            self._save_if_due(stop)
        self._save()
        return self._history, self._learner.networks(self._best)

    @property
    def _over(self) -> bool:
        config, history = self._config, self._history
        return len(history.losses) >= config.steps or history.is_over(config.steps, config.patience)

    @property
    def _seconds(self) -> float:
        return self._history.seconds + time.monotonic() - self._began

    def _validate(self, done: int, say: Callable[[str], None]) -> None:
        config, history = self._config, self._history
        if done % config.validate_every and done < config.steps:
            return
        weights = self._learner.average
        validation = self._validator.validate(self._learner.networks(weights), self._device)
        history.validations[done] = validation
        if history.best == done:
            self._best = weights
        say(_progress(done, config.steps, history, validation, self._seconds))

    def _save_if_due(self, stop: StopRequest) -> None:
        if stop.requested or time.monotonic() - self._saved > 60 * self._config.checkpoint_minutes:
            self._save()
            stop.check()

    def _save(self) -> None:
        self._history.seconds, self._began = self._seconds, time.monotonic()
        tensors = self._learner.state() | {f"best.{name}": tensor for name, tensor in self._best.items()}
        record = {"identity": identity(self._config, self._lesson), "history": self._history.to_json()}
        Checkpoint(tensors, record).save(self._checkpoint)
        self._saved = time.monotonic()


def _progress(done: int, steps: int, history: History, validation: Validation, seconds: float) -> str:
    recent = history.losses[-_RECENT:]
    return (
        f"step {done} of {steps}: loss {sum(recent) / len(recent):.3f}; {validation.mean:.0%} of the known transforms "
        f"found, mean error {validation.error:.1%} of the width; {seconds / 60:.1f} min, "
        f"about {seconds / done * (steps - done) / 60:.0f} more"
    )


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def identity(config: TrainConfig, lesson: Lesson) -> dict[str, Any]:
    """Return, as JSON, all that decides what a training comes to: its settings, its data, and where it computes."""
    return {
        **_terms(config),
        # The folders' names stand for content, channel, series, working level and mask.
        "slides": {
            f"{pair.name} {side}": getattr(pair, side).folder.name
            for pair in lesson.data.pairs
            for side in ("fixed", "moving")
        },
        "modalities": [card.model_dump(mode="json") for card in lesson.modalities],
        "mpp": lesson.data.mpp,
    }


def _terms(config: TrainConfig) -> dict[str, Any]:
    """Return what of that is known before any slide is looked at."""
    return {
        "settings": config.model_dump(mode="json", exclude=_FREE),
        "device": resolve_device(config.device),
        "torch": str(torch.__version__),
        "revision": REVISION,
    }


def _require_same_terms(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    earlier = before.get("revision", 1)  # which the first one did not note
    if earlier != now["revision"]:
        raise ConfigError(
            f"another version of comir-batch began this training (revision {earlier}, now {now['revision']}) and would "
            "come to other weights. Go on with that version, or begin anew in another --out"
        )
    _require_equal(*({**each["settings"], "device": each["device"], "torch": each["torch"]} for each in (before, now)))


def _require_same(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    _require_same_terms(before, now)
    slides = _differing(before["slides"], now["slides"])
    if slides:
        raise ConfigError(
            "the pairs, their channels or masks are not those of the training that was stopped "
            f"({', '.join(slides[:5])}). Begin anew in another --out"
        )
    _require_equal(*({name: each.get(name) for name in ("mpp", "modalities")} for each in (before, now)))


def _require_equal(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    first, second = _flat(before), _flat(now)
    other = "; ".join(f"{n} was {first.get(n)!r}, is {second.get(n)!r}" for n in _differing(first, second))
    if other:
        raise ConfigError(f"a training goes on with the settings that it began with: {other}")


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by the names that `--set` knows them by."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [name for name in {**before, **now} if before.get(name) != now.get(name)]
