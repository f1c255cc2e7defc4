"""Training: from a manifest of aligned pairs, or from a run, to a model with its card and its report."""

from __future__ import annotations

import platform
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from comir_batch import __version__
from comir_batch.core.card import ModelCard
from comir_batch.core.errors import ConfigError, StoppedError
from comir_batch.pipeline.files import write_json
from comir_batch.representation.device import resolve_device
from comir_batch.representation.store import CARD, WEIGHTS, Model, as_name, find_model, is_model, save_card
from comir_batch.representation.weights import save
from comir_batch.training.course import learn, require_able
from comir_batch.training.diagnose import diagnose
from comir_batch.training.evaluate import evaluate
from comir_batch.training.files import TrainingFiles
from comir_batch.training.folder import held
from comir_batch.training.from_run import pairs_of_run
from comir_batch.training.lesson import prepare_lesson
from comir_batch.training.report import write_report

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from comir_batch.core.events import Subscriber
    from comir_batch.execution.stop import StopRequest
    from comir_batch.representation.network import DenseUNet
    from comir_batch.training.config import TrainConfig
    from comir_batch.training.diagnosis import Diagnosis
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
        If the pairs cannot be learnt from, or the settings do not suit them; or if the folder holds other files.
    RunDirectoryError
        If another process trains there.
    StoppedError
        If it was asked to stop.
    """
    files = TrainingFiles(request.out.resolve())
    if is_model(files.root):
        raise ConfigError(f"{files.root} holds a model already. Choose another --out")
    if request.resume and not files.root.exists():
        raise ConfigError(f"there is nothing to resume in {files.root}. Leave --resume out, or correct --out")
    with held(files.root, "training", say):
        _require_resumed(files, say, resume=request.resume)
        require_able(request.config, files.checkpoint)
        return _train(request, files, stop, say, subscriber)


def _train(
    request: TrainRequest, files: TrainingFiles, stop: StopRequest, say: Callable[[str], None], subscriber: Subscriber
) -> ModelCard:
    config = request.config
    manifest, notes = _pairs(request, files)
    for note in notes:
        say(note)
    lesson = prepare_lesson(manifest, request.held_out, files.data, config, stop, say, subscriber)
    history, networks = _learnt(lesson, config, files, stop, say)
    say("measuring the model on what it has not learnt from")
    save(files.draft, model_card(config, lesson, history), networks)
    model, found = _measured(files.draft, lesson, config)
    settings = config.model_dump(mode="json")
    write_json(files.record, {"settings": settings, "command": list(request.command), **history.to_json()})
    write_report(files, model, found, lesson, history, request.command, notes)
    for name in (WEIGHTS, CARD):  # the card, which makes a model of the folder, last
        (files.draft / name).replace(files.root / name)
    _clear_up(files, keep_data=request.keep_data)
    return model.card


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
        "device_used": resolve_device(config.device),
        "machine": platform.machine(),
    }
    return ModelCard(
        name=config.name or as_name("-".join(lesson.data.modalities)),
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


def _require_resumed(files: TrainingFiles, say: Callable[[str], None], *, resume: bool) -> None:
    """Refuse to take up by accident what was stopped; say so if there is nothing to take up."""
    if files.checkpoint.exists() and not resume:
        raise ConfigError(f"{files.root} holds a training that was stopped: give --resume, or choose another --out")
    if resume and not files.checkpoint.exists():
        say("no checkpoint yet: beginning anew")


def _learnt(
    lesson: Lesson, config: TrainConfig, files: TrainingFiles, stop: StopRequest, say: Callable[[str], None]
) -> tuple[History, dict[str, DenseUNet]]:
    try:
        return learn(lesson, config, files.checkpoint, stop, say)
    except StoppedError as error:
        raise StoppedError("stopped before the end; the same command with --resume goes on", error.exit_code) from error


def _measured(folder: Path, lesson: Lesson, config: TrainConfig) -> tuple[Model, Diagnosis]:
    """Measure a model, and put its figures on its card."""
    model = find_model(folder)
    found = diagnose(model, lesson.measured, crops=config.measured_crops, device=config.device)
    figures: dict[str, str | int | float] = {
        **evaluate(model, lesson.measured, seed=config.seed, device=config.device),
        **{f"found_{level}": round(share, 4) for level, share in enumerate(found.success.levels, 1)},
        "found_of": found.success.fields,
        "measured_on": _measured_on(lesson),
    }
    return Model(save_card(folder, model.card.model_copy(update={"metrics": figures})), model.folder), found


def _measured_on(lesson: Lesson) -> str:
    names = ", ".join(dict.fromkeys(part.pair.name for part in lesson.measured))
    what = "which the model never read" if lesson.is_measured_unseen else "which decided when to stop"
    return f"{len(lesson.measured)} parts, {what}, of {names[:200]}"


def _clear_up(files: TrainingFiles, *, keep_data: bool) -> None:
    files.checkpoint.unlink(missing_ok=True)
    for folder in (files.draft, *(() if keep_data else (files.data,))):
        shutil.rmtree(folder, ignore_errors=True)
