"""The report of a training: how good the model is, how it got there, and what its representations look like."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import numpy as np

from comir_batch import __version__
from comir_batch.pipeline.files import write_text
from comir_batch.report.article import Article, Picture, Section, Table, article_page
from comir_batch.report.charts import Series, lines
from comir_batch.report.data import Link, Provenance
from comir_batch.report.figures import displayed, panel
from comir_batch.training.diagnosis import FAIR, GOOD
from comir_batch.training.diagnosis_sections import sections
from comir_batch.training.sampling import Sampler

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from comir_batch.representation.store import Model
    from comir_batch.training.diagnosis import Diagnosis, Success
    from comir_batch.training.files import TrainingFiles
    from comir_batch.training.history import History
    from comir_batch.training.lesson import Lesson
    from comir_batch.training.split import Part

_EXAMPLES = 3
_SMOOTHED = 25


def write_report(
    files: TrainingFiles,
    model: Model,
    found: Diagnosis,
    lesson: Lesson,
    history: History,
    command: Sequence[str],
    notes: Sequence[str],
) -> None:
    """Write the report of a training that has ended.

    Parameters
    ----------
    files : TrainingFiles
        Where.
    model : Model
        What came of it, with its figures on the card.
    found : Diagnosis
        Of the model.
    lesson : Lesson
        What it learnt from.
    history : History
        What happened.
    command, notes : sequence of str
        The command line, and what was said of the pairs.
    """
    article = Article(
        f"Training of {model.card.name}",
        " against ".join(card.modality for card in model.card.modalities),
        (
            _summary(lesson, history, found.success),
            _curves(history),
            _pictures(model, lesson),
            *sections(found),
            _data(lesson, notes),
            _settings(model),
        ),
        (
            Link("weights.safetensors", "weights.safetensors"),
            Link("card.json", "card.json"),
            Link("training.json", "training.json"),
        ),
        Provenance(__version__, shlex.join(command)),
    )
    write_text(files.report, article_page(article))


def judgement(success: float) -> str:
    """Return in words what a share of known transforms that were found again means."""
    if success >= GOOD:
        return "This model can be relied on for images like those that it was measured on."
    if success >= FAIR:
        return (
            "This model helps, and fails now and then: runs compare it with the raw images, and their verdicts decide. "
            "More pairs, or more steps, should make it better."
        )
    return (
        f"Do not rely on this model: {1 - success:.0%} of the known transforms were not found again. Look whether the "
        "pairs are aligned and show the same structures; give more pairs, or register with `--model none`."
    )


def _summary(lesson: Lesson, history: History, success: Success) -> Section:
    best = history.validations[history.best]
    levels = ", ".join(f"{share:.0%}" for share in best.success)
    unseen = "on what the model never read" if lesson.is_measured_unseen else "on crops that decided when to stop"
    kept = (
        f"The weights are those after step {history.best} of {len(history.losses)}, when validation went best: known "
        f"rigid transforms of crops that were not learnt from were found to 2 % of the width in {best.mean:.0%} of the "
        f"cases ({levels} at turns below 5, 10, 15 and 20°), by a quick search without elastix."
    )
    after = f"The figures further down were measured {unseen}. Learning took {history.seconds / 60:.1f} minutes."
    return Section("How good it is", (judgement(success.mean), kept, after))


def _curves(history: History) -> Section:
    steps = np.arange(1, len(history.losses) + 1)
    window = min(_SMOOTHED, len(steps))
    smooth = np.convolve(history.losses, np.ones(window) / window, mode="valid")
    loss = lines(
        "Contrastive loss",
        [Series("each step", steps, history.losses), Series(f"mean of {window}", steps[window - 1 :], smooth)],
        "step",
        "loss",
    )
    done = list(history.validations)
    levels = np.array([history.validations[n].success for n in done])
    names = ("below 5°", "5-10°", "10-15°", "15-20°")
    success = lines(
        "Known transforms found again",
        [Series(name, done, 100 * levels[:, k]) for k, name in enumerate(names)],
        "step",
        "found, %",
        y_range=(0, 100),
    )
    errors = [100 * history.validations[n].error for n in done]
    error = lines("Mean corner error", [Series("all levels", done, errors)], "step", "% of the width")
    return Section("How it learnt", charts=(loss, success, error))


def _pictures(model: Model, lesson: Lesson) -> Section:
    tissue = "unseen tissue" if lesson.is_measured_unseen else "tissue that decided when to stop"
    return Section(f"What the networks make of {tissue}", pictures=tuple(_examples(model, lesson.measured)))


def _examples(model: Model, parts: Sequence[Part]) -> Iterator[Picture]:
    sampler = Sampler(model, parts, "cpu")
    side, places = sampler.draw(_EXAMPLES, np.random.default_rng(0), window=True)
    names = [card.modality for card in sampler.modalities]
    titles = [*names, *(f"CoMIR of {name}" for name in names)]
    for place in places:
        crops = [network.reader(place).read(place.upright, side) for network in sampler.networks]
        comirs = [network.window(place, side) for network in sampler.networks]
        low, high = np.percentile(np.stack(comirs), [1, 99])  # the same for both, as registration sees them
        shown = [displayed(_as_bytes(crop, 0, 1)) for crop in crops]
        shown += [displayed(_as_bytes(comir, low, high), stretch=False) for comir in comirs]
        where = f"{place.part.pair.name}, {side} pixels at {place.pose.x:.0f}, {place.pose.y:.0f} µm"
        yield Picture(where, panel(shown, titles, height=320))


def _as_bytes(image: NDArray[np.floating], low: float, high: float) -> NDArray[np.uint8]:
    """Return ``(C, Y, X)`` as ``(Y, X)`` or, of three channels, ``(Y, X, 3)`` bytes."""
    scaled = np.clip((image - low) / max(high - low, 1e-9), 0, 1) * 255
    picture = np.moveaxis(scaled, 0, -1) if len(image) == 3 else scaled.mean(axis=0)
    return np.asarray(picture, dtype=np.uint8)


def _data(lesson: Lesson, said: Sequence[str]) -> Section:
    learnt = {part.pair.name for part in lesson.parts.training}
    validated = {part.pair.name for part in lesson.parts.validation}
    rows = []
    for pair in lesson.data.pairs:
        used = [word for word, names in (("learnt from", learnt), ("validated on", validated)) if pair.name in names]
        alignment = lesson.alignments.get(pair.name)
        rows.append((pair.name, " and ".join(used), alignment.sentence if alignment else "not measured"))
    rows += [(name, "measured on", alignment.sentence) for name, alignment in lesson.held_out_alignments.items()]
    columns = ("pair", "used", "alignment, measured without the model")
    notes = (f"Pixel size {lesson.data.mpp:.4g} µm.", *said)
    return Section("What it learnt from", notes, (Table("Pairs", columns, tuple(rows)),))


def _settings(model: Model) -> Section:
    rows = tuple((key, str(value)) for key, value in model.card.training.items())
    return Section("Settings", tables=(Table("Settings and versions", ("setting", "value"), rows),))
