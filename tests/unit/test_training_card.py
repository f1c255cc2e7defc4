"""What a card says of its training data."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from comir_batch.core.card import Architecture, ModalityCard
from comir_batch.core.slide import SlideSpec
from comir_batch.training.crops import TrainingPair
from comir_batch.training.train import TrainConfig, train
from comir_batch.training.window import Box

TINY = Architecture(in_channels=1, init_filters=4, down=(1,), bottleneck=1, up=(1,), growth=4)
CONFIG = TrainConfig(
    name="tiny",
    modalities=(ModalityCard(modality="a", architecture=TINY), ModalityCard(modality="b", architecture=TINY)),
    mpp=1.0,
    trained_on="noise",
    held_out="nothing",
    licence="MIT",
    steps=1,
    batch=2,
    crop=16,
    precision="float32",
    threads=1,
)


@pytest.fixture
def slides(tmp_path):
    rng = np.random.default_rng(0)
    for name in "abcd":
        cv2.imwrite(str(tmp_path / f"{name}.png"), rng.integers(0, 255, (96, 96), np.uint8))
    return [SlideSpec(tmp_path / f"{name}.png", mpp=1.0) for name in "abcd"]


def test_parts_of_the_same_two_files_are_one_slide(slides, tmp_path):
    left, right = Box(x1=48.0), Box(x0=48.0)
    detour = replace(slides[0], path=slides[0].path.parent / ".." / slides[0].path.parent.name / slides[0].path.name)
    parts = [TrainingPair(*slides[:2], left), TrainingPair(*slides[:2], right), TrainingPair(detour, slides[1], right)]
    assert train(parts, CONFIG, tmp_path / "one").slides == 1
    assert train([*parts, TrainingPair(*slides[2:])], CONFIG, tmp_path / "two").slides == 2
