"""Training: from a manifest of aligned pairs, or from a run, to a model with its card and its report."""

from __future__ import annotations

import platform
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from comir_batch import __version__
from comir_batch.core.card import ModelCard
from comir_batch.core.errors import ConfigError
from comir_batch.pipeline.files import write_json
from comir_batch.representation.store import CARD, WEIGHTS, find_model, is_model, save_card
from comir_batch.representation.weights import save
from comir_batch.training.course import learn
from comir_batch.training.evaluate import evaluate
from comir_batch.training.files import TrainingFiles
from comir_batch.training.from_run import pairs_of_run
from comir_batch.training.lesson import prepare_lesson
from comir_batch.training.report import write_report

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from comir_batch.core.events import Subscriber
    from comir_batch.execution.stop import StopRequest
    from comir_batch.training.config import TrainConfig
    from comir_batch.training.history import History
    from comir_batch.training.lesson import Lesson

_NOT_SETTINGS = {"name", "licence", "trained_on", "execution", "fixed", "moving", "supervision", "region"}


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """What to train.

    Attributes
    ----------
    source : Path
        Manifest of aligned pairs, or a run whose accepted pairs are taken as aligned.
    out : Path
        Folder of the model.
    config : TrainConfig
        Settings.
    held_out : Path or None
        Manifest of aligned pairs that the model is measured on.
    from_run : bool
        Whether the source is a run.
    only : tuple of str
        Pairs of the run to take, accepted or for review; empty for all that were accepted.
    resume : bool
        Whether to go on with the training that was stopped there.
    keep_data : bool
        Whether the slides as Zarr stay.
    command : tuple of str
        The command line, for the report.
    """

    source: Path
    out: Path
    config: TrainConfig
    held_out: Path | None = None
    from_run: bool = False
    only: tuple[str, ...] = ()
    resume: bool = False
    keep_data: bool = False
    command: tuple[str, ...] = ()


def train(request: TrainRequest, stop: StopRequest, say: Callable[[str], None], subscriber: Subscriber) -> ModelCard:
    """Train, and write the model, its card and its report; return the card.

    Parameters
    ----------
    request : TrainRequest
        What.
    stop : StopRequest
        Looked at after every step; a stopped training leaves a checkpoint.
    say : callable
        Told in a sentence how it goes.
    subscriber : callable
        Hears how the slides are rewritten.

    Raises
    ------
    ManifestError, SlideError, ConfigError
        If the pairs cannot be learnt from, or the settings do not suit them.
    StoppedError
        If it was asked to stop.
    """
    files = TrainingFiles(request.out.resolve())
    _require_free(files, request)
    manifest, notes = _pairs(request, files)
    for note in notes:
        say(note)
    lesson = prepare_lesson(manifest, request.held_out, files.data, request.config, stop, say, subscriber)
    history, networks = learn(lesson, request.config, files.checkpoint, stop, say)
    say("measuring the model on what it has not learnt from")
    save(files.draft, model_card(request.config, lesson, history), networks)
    card = _measured(files.draft, lesson, request.config.seed)
    settings = request.config.model_dump(mode="json")
    write_json(files.record, {"settings": settings, "command": list(request.command), **history.to_json()})
    write_report(files, find_model(files.draft), lesson, history, request.command, notes)
    for name in (WEIGHTS, CARD):  # the card, which makes a model of the folder, last
        (files.draft / name).replace(files.root / name)
    _clear_up(files, keep_data=request.keep_data)
    return card


def model_card(config: TrainConfig, lesson: Lesson, history: History) -> ModelCard:
    """Return the card of a model, without figures."""
    pairs = lesson.data.pairs
    supervised = config.supervision.approach != "none"
    settings = config.model_dump(mode="json", exclude=_NOT_SETTINGS) | {
        "region": " ".join(f"{share:g}" for share in config.region),
        "supervision": f"{config.supervision.approach}, {config.supervision.critic}" if supervised else "none",
        "steps_done": len(history.losses),
        "steps_kept": history.best,
        "comir-batch": __version__,
        "torch": str(torch.__version__),
        "machine": platform.machine(),
    }
    return ModelCard(
        name=config.name or "-".join(lesson.data.modalities),
        modalities=lesson.modalities,
        mpp=lesson.data.mpp,
        slides=min(len({getattr(pair, side).digest for pair in pairs}) for side in ("fixed", "moving")),
        trained_on=config.trained_on or f"{len(pairs)} pairs: {', '.join(pair.name for pair in pairs)[:500]}",
        held_out=lesson.unseen,
        licence=config.licence,
        data_sha256={
            f"{pair.name}/{side}/{getattr(pair, side).spec.path.name}": getattr(pair, side).digest
            for pair in pairs
            for side in ("fixed", "moving")
        },
        training=settings,
        weights_sha256="",
    )


def _pairs(request: TrainRequest, files: TrainingFiles) -> tuple[Path, tuple[str, ...]]:
    """Return the manifest of aligned pairs, and what is to be said of it."""
    return pairs_of_run(request.source, files.from_run, request.only) if request.from_run else (request.source, ())


def _require_free(files: TrainingFiles, request: TrainRequest) -> None:
    """Refuse to overwrite a model, and to take up by accident, or in vain, what was stopped."""
    if is_model(files.root):
        raise ConfigError(f"{files.root} holds a model already. Choose another --out")
    if files.checkpoint.exists() and not request.resume:
        raise ConfigError(f"{files.root} holds a training that was stopped: give --resume, or choose another --out")
    if request.resume and not files.root.is_dir():
        raise ConfigError(f"there is nothing to resume in {files.root}. Leave --resume out, or correct --out")


def _measured(folder: Path, lesson: Lesson, seed: int) -> ModelCard:
    model = find_model(folder)
    figures = evaluate(model, lesson.measured, seed=seed)
    return save_card(folder, model.card.model_copy(update={"metrics": figures}))


def _clear_up(files: TrainingFiles, *, keep_data: bool) -> None:
    files.checkpoint.unlink(missing_ok=True)
    for folder in (files.draft, *(() if keep_data else (files.data,))):
        shutil.rmtree(folder, ignore_errors=True)
