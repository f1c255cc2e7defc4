"""How the shipped models were made: ``python -m comir_batch.training.recipes NAME --data FOLDER --out FOLDER``.

The same seed, threads, machine and versions give the same weights. On a machine that is busy otherwise, set
``OMP_WAIT_POLICY=PASSIVE``: it changes the time, not the result.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2

from comir_batch.core.card import Input, ModalityCard, ModelCard
from comir_batch.core.slide import SlideSpec
from comir_batch.representation.network import preset
from comir_batch.representation.store import find_model, save_card
from comir_batch.training import ihc
from comir_batch.training.pairs import TrainingPair
from comir_batch.training.evaluate import evaluate
from comir_batch.training.train import TrainConfig, train
from comir_batch.training.split import Box

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True)
class Recipe:
    """A model's training.

    Attributes
    ----------
    config : TrainConfig
        Settings and texts.
    slides : callable
        Takes the folder of the data, gives the fixed and the moving slide.
    trained, held_out : Box
        The parts of the slides, in µm, that it learns from and is measured on.
    """

    config: TrainConfig
    slides: Callable[[Path], tuple[SlideSpec, SlideSpec]]
    trained: Box
    held_out: Box


def _modalities(*names: str, **settings: object) -> tuple[ModalityCard, ModalityCard]:
    first, second = (
        ModalityCard(modality=name, architecture=preset("compact"), input=Input.model_validate(settings))
        for name in names
    )
    return first, second


def _dapi_tritc_slides(data: Path) -> tuple[SlideSpec, SlideSpec]:
    return SlideSpec(data / "test3-DAPI-2-(387).ndpi"), SlideSpec(data / "test3-TRITC 2 (560).ndpi")


def _ihc_slides(data: Path) -> tuple[SlideSpec, SlideSpec]:
    from skimage.data import immunohistochemistry  # noqa: PLC0415  only this recipe needs scikit-image

    data.mkdir(parents=True, exist_ok=True)
    first, second = data / "haematoxylin.png", data / "dab.png"
    picture = immunohistochemistry()  # type: ignore[no-untyped-call]  # scikit-image has no stubs
    for path, channel in zip((first, second), ihc.haematoxylin_dab_channels(picture), strict=True):
        cv2.imwrite(str(path), channel)
    return SlideSpec(first, mpp=ihc.MPP), SlideSpec(second, mpp=ihc.MPP)


_NDPI_SPLIT = 3648 * 0.2281750559028887  # three quarters of the height of 4864 pixels, in µm
_IHC_SPLIT = ihc.TRAINED_WIDTH * ihc.MPP

RECIPES = {
    "dapi-tritc": Recipe(
        TrainConfig(
            name="dapi-tritc",
            modalities=_modalities("dapi", "tritc", reduction="max"),
            mpp=0.9127,
            trained_on="Upper three quarters of one NDPI pair, test3-DAPI-2-(387) and test3-TRITC 2 (560), from github "
            "Booritas/slideio-tutorial (openmicroscopy/bioformats pull request 2759), CC BY 4.0, (c) Manuel Stritt",
            held_out="Bottom quarter of the same pair (level-0 rows from 3648)",
            licence="CC BY 4.0",
            steps=300,  # about 15 minutes on two cores
            batch=8,
            contrast=24,
            learning_rate=2e-3,
        ),
        _dapi_tritc_slides,
        Box(y1=_NDPI_SPLIT),
        Box(y0=_NDPI_SPLIT),
    ),
    "haematoxylin-dab": Recipe(
        TrainConfig(
            name="haematoxylin-dab",
            modalities=_modalities("haematoxylin", "dab", reduction="none"),
            mpp=ihc.MPP,
            trained_on="Haematoxylin and DAB of the left five eighths of scikit-image's immunohistochemistry picture "
            "(colon, FHL2, 512 x 512 pixels; acquired at the CMMI; no known copyright restrictions)",
            held_out="The rest of the picture (columns from 320)",
            licence="MIT",
            steps=150,  # of whole crops: squares are told apart by fine detail that both stains share, and nothing else
            batch=16,
            learning_rate=2e-3,
        ),
        _ihc_slides,
        Box(x1=_IHC_SPLIT),
        Box(x0=_IHC_SPLIT),
    ),
}


def make(name: str, data: Path, out: Path, on_step: Callable[[int, float], None] | None = None) -> ModelCard:
    """Train a model by its recipe, write it, and measure it on what it has not seen; return its card.

    Raises
    ------
    KeyError
        If there is no such recipe.
    SlideError
        If the data cannot be used.
    """
    recipe = RECIPES[name]
    train([TrainingPair(*recipe.slides(data), recipe.trained)], recipe.config, out, on_step)
    return measure(name, data, out)


def measure(name: str, data: Path, out: Path) -> ModelCard:
    """Measure the model in a folder on what its recipe holds out, and write the figures into its card; return it."""
    recipe = RECIPES[name]
    fixed, moving = recipe.slides(data)
    model = find_model(out)
    figures = evaluate(model, TrainingPair(fixed, moving, recipe.held_out))
    command = f"python -m comir_batch.training.recipes {name} --data DATA --out OUT"
    return save_card(out, model.card.model_copy(update={"metrics": {**figures, "command": command}}))


def main(arguments: Sequence[str] | None = None) -> None:
    """Make a shipped model again; progress goes to standard error, the figures to standard output."""
    parser = argparse.ArgumentParser(
        prog="python -m comir_batch.training.recipes", description="Train a shipped model."
    )
    parser.add_argument("name", choices=sorted(RECIPES))
    parser.add_argument("--data", type=Path, required=True, help="folder of the training slides")
    parser.add_argument("--out", type=Path, required=True, help="folder that the model is written to")
    parser.add_argument("--only-measure", action="store_true", help="measure the model that lies in --out again")
    chosen = parser.parse_args(arguments)
    started = time.monotonic()

    def tell(step: int, loss: float) -> None:
        if step % 20 == 0:
            print(f"step {step}: loss {loss:.3f}, {time.monotonic() - started:.0f} s", file=sys.stderr)  # noqa: T201

    if chosen.only_measure:
        card = measure(chosen.name, chosen.data, chosen.out)
    else:
        card = make(chosen.name, chosen.data, chosen.out, tell)
    for figure, value in card.metrics.items():
        print(f"{figure}: {value}")  # noqa: T201


if __name__ == "__main__":
    main()
