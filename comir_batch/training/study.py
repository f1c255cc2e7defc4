"""Studies: the same training with one thing changed at a time, measured on the same crops."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from scipy.stats import binomtest

from comir_batch.core.errors import ConfigError
from comir_batch.pipeline.files import read_json, write_json
from comir_batch.representation.store import find_model, is_model
from comir_batch.representation.weights import save
from comir_batch.training.config import checked
from comir_batch.training.course import identity, learn, require_able
from comir_batch.training.diagnose import diagnose
from comir_batch.training.folder import held
from comir_batch.training.known_rigid import FOUND
from comir_batch.training.lesson import prepare_lesson
from comir_batch.training.study_report import write_study
from comir_batch.training.train import model_card
from comir_batch.training.validate import Validator, representers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from comir_batch.core.events import Subscriber
    from comir_batch.execution.stop import StopRequest
    from comir_batch.training.config import TrainConfig
    from comir_batch.training.diagnosis import Diagnosis
    from comir_batch.training.lesson import Lesson

APPROACHES = ("alternating", "summed", "pretraining")
CRITICS = ("mse", "cosine", "l1")
STUDIES: dict[str, dict[str, dict[str, Any]]] = {
    "supervision": {
        "none": {"supervision": {"approach": "none"}},
        **{
            f"{approach} {critic}": {"supervision": {"approach": approach, "critic": critic}}
            for approach in APPROACHES
            for critic in CRITICS
        },
    },
    "symmetry": {name: {"symmetry": name} for name in ("none", "c4", "d4")},
}
"""What each study changes, by the name of the variant, whatever the config says of it; the first is what the others are
compared with."""


@dataclass(frozen=True, slots=True)
class StudyRequest:
    """What to study.

    Attributes
    ----------
    name : str
        One of `STUDIES`.
    manifest : Path
        Aligned pairs.
    out : Path
        Takes a model for each variant and seed, the table and the report; what is there already is not made again.
    config : TrainConfig
        What all variants have in common.
    held_out : Path or None
        Aligned pairs that the models are measured on.
    seeds : int
        Trainings of each variant, with the seeds from the config's on.
    fields : int
        Known transforms that each model is measured on, dealt out to the four levels in turn.
    command : tuple of str
        The command line, for the report.
    """

    name: str
    manifest: Path
    out: Path
    config: TrainConfig
    held_out: Path | None = None
    seeds: int = 1
    fields: int = 200
    command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Trial:
    """One model of a study.

    Attributes
    ----------
    variant : str
        What was changed.
    seed : int
        Of its training.
    found : tuple of int
        Known transforms that were found to 2 % of the width, at each level.
    fields : tuple of int
        Transforms that were tried, at each level.
    side : int
        Of their crops in pixels: that of the training's, or halved for want of room.
    loss : float
        Mean over the last fifty steps.
    minutes : float
        Of learning.
    diagnosis : Diagnosis
        Of the model.
    """

    variant: str
    seed: int
    found: tuple[int, ...]
    fields: tuple[int, ...]
    side: int
    loss: float
    minutes: float
    diagnosis: Diagnosis

    @property
    def success(self) -> float:
        """Share of the transforms that were found."""
        return sum(self.found) / sum(self.fields)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the success, by Clopper and Pearson; the fields overlap, so that it is too narrow."""
        low, high = binomtest(sum(self.found), sum(self.fields)).proportion_ci(0.95, "exact")
        return float(low), float(high)

    def rank(self, space: str) -> float:
        """Return the effective rank of the `output` or `bottleneck`, mean of both modalities."""
        (chosen,) = (each for each in self.diagnosis.spaces if each.name == space)
        ranks = [chosen.spectra[turning.modality].effective_rank for turning in self.diagnosis.turning]
        return sum(ranks) / len(ranks)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        found = {name: value for name, value in asdict(self).items() if name != "diagnosis"}
        return found | {"success": self.success, "interval": self.interval, "diagnosis": self.diagnosis.to_json()}


def study(
    request: StudyRequest, stop: StopRequest, say: Callable[[str], None], subscriber: Subscriber
) -> tuple[Trial, ...]:
    """Train every variant, measure all, and write `study.json` and `study.html`.

    Parameters
    ----------
    request : StudyRequest
        What.
    stop : StopRequest
        Looked at after every step; the same request goes on.
    say : callable
        Told in a sentence how it goes.
    subscriber : callable
        Hears how the slides are rewritten.

    Raises
    ------
    ManifestError, SlideError, ConfigError
        If the pairs cannot be learnt from, or the folder holds another study or other files.
    RunDirectoryError
        If another process works there.
    StoppedError
        If it was asked to stop.
    """
    with held(request.out, "study", say):
        return _study(request, stop, say, subscriber)


def _study(
    request: StudyRequest, stop: StopRequest, say: Callable[[str], None], subscriber: Subscriber
) -> tuple[Trial, ...]:
    require_able(request.config)
    lesson = prepare_lesson(
        request.manifest, request.held_out, request.out / "data", request.config, stop, say, subscriber
    )
    _require_same(request, lesson)
    trials = []
    for seed in range(request.config.seed, request.config.seed + request.seeds):
        for variant, changes in STUDIES[request.name].items():
            say(f"{variant}, seed {seed}")
            config = _changed(request.config, changes | {"seed": seed})
            folder = request.out / "models" / f"{variant.replace(' ', '-')}-{seed}"
            if not is_model(folder):
                _train(lesson, config, folder, stop, say)
            trials.append(_measure(lesson, config, variant, folder, request))
            say(f"{variant}, seed {seed}: {trials[-1].success:.1%} of {request.fields} known transforms found")
    write_json(request.out / "study.json", {"study": request.name, "trials": [trial.to_json() for trial in trials]})
    write_study(request, lesson, trials)
    shutil.rmtree(request.out / "data", ignore_errors=True)
    return tuple(trials)


def _require_same(request: StudyRequest, lesson: Lesson) -> None:
    """Note what is studied; refuse a folder with models of another study."""
    note = request.out / "settings.json"
    wanted = {"study": request.name, **identity(request.config, lesson)}
    if note.exists() and {"revision": 1, **read_json(note)} != json.loads(json.dumps(wanted)):
        raise ConfigError(f"{request.out} holds a study of other pairs or settings. Choose another --out")
    write_json(note, wanted)


def _changed(config: TrainConfig, changes: Mapping[str, Any]) -> TrainConfig:
    return checked(config.model_dump() | dict(changes))


def _train(lesson: Lesson, config: TrainConfig, folder: Path, stop: StopRequest, say: Callable[[str], None]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint.safetensors"
    history, networks = learn(lesson, config, checkpoint, stop, say)
    write_json(folder / "training.json", history.to_json())
    save(folder, model_card(config, lesson, history), networks)
    checkpoint.unlink(missing_ok=True)


def _measure(lesson: Lesson, config: TrainConfig, variant: str, folder: Path, request: StudyRequest) -> Trial:
    model, history = find_model(folder), read_json(folder / "training.json")
    fields = Validator(
        lesson.measured,
        lesson.modalities,
        lesson.data.mpp,
        count=request.fields,
        side=config.crop,
        seed=request.config.seed,
    )
    errors = fields.errors(representers(model, config.device))
    recent: Sequence[float] = history["losses"][-50:]
    return Trial(
        variant,
        config.seed,
        tuple(int((level <= FOUND).sum()) for level in errors),
        tuple(len(level) for level in errors),
        fields.side,
        sum(recent) / len(recent),
        history["seconds"] / 60,
        diagnose(model, lesson.measured, crops=config.measured_crops, seed=request.config.seed, device=config.device),
    )
