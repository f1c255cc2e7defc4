"""What a training learns from: what is left out and said, what is refused by its row, and what counts as stained."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from skimage.data import immunohistochemistry

from comir_batch.core.errors import ManifestError
from comir_batch.execution.stop import StopRequest
from comir_batch.training.batches import BatchSource
from comir_batch.training.config import TrainConfig
from comir_batch.training.ihc import haematoxylin_dab_channels
from comir_batch.training.lesson import prepare_lesson
from comir_batch.training.validate import Validator

HEADER = "pair_id,fixed,moving,fixed_modality,moving_modality,fixed_mpp,moving_mpp"
SETTINGS = {"mpp": 0.5, "crop": 64, "batch": 4, "check_alignment": False, "augmentation": 0.0}


def write(folder, sides):
    """Write a pair for each side: tiles of the stains, blank ones where the side is negative."""
    rows, stains = [HEADER], haematoxylin_dab_channels(immunohistochemistry())
    for number, side in enumerate(sides):
        y, x = (160 * k for k in divmod(number, 3))
        for name, image in zip("hd", stains, strict=True):
            tile = image[y : y + abs(side), x : x + abs(side)] if side > 0 else np.zeros((-side, -side), np.uint8)
            cv2.imwrite(str(folder / f"{name}{number}.png"), tile)
        rows.append(f"t{number},h{number}.png,d{number}.png,haematoxylin,dab,0.5,0.5")
    (folder / "pairs.csv").write_text("\n".join(rows) + "\n")
    return folder / "pairs.csv"


def lesson(manifest, held_out=None, **settings):
    said = []
    config = TrainConfig.model_validate(SETTINGS | settings)
    made = prepare_lesson(manifest, held_out, manifest.parent / "d", config, StopRequest(), said.append, lambda _: None)
    return made, said, config


def test_a_pair_too_small_for_a_crop_is_left_out_and_said(tmp_path):
    made, said, config = lesson(write(tmp_path, [160, 70, 160, 160, 70, 160]), seed=2)
    small = {part.pair.name for part in made.parts.training} & {"t1", "t4"}
    assert small
    left_out = [sentence for sentence in said if sentence.startswith("not learnt from: ")]
    assert {sentence.split()[4].rstrip(":") for sentence in left_out} == small
    source = BatchSource(made.parts.training, made.modalities, made.stained, made.data.mpp, config)
    assert source.batch(0).fixed.shape == (4, 1, 64, 64)
    assert [part.pair.name in small for part in made.parts.training] == (source._shares == 0).tolist()
    both = (*made.parts.training, *made.parts.validation)
    validator = Validator(both, made.modalities, made.data.mpp, count=4, side=64, seed=1)
    assert validator.side == 64


def test_jitter_parts_the_crops_of_a_place_and_moves_nothing_else(tmp_path):
    made, _, config = lesson(write(tmp_path, [160] * 6), augmentation=0)
    parted = config.model_copy(update={"jitter": 2.0})
    plain, moved = (
        BatchSource(made.parts.training, made.modalities, made.stained, made.data.mpp, each).batch(0)
        for each in (config, parted)
    )
    assert torch.equal(plain.fixed[0], moved.fixed[0])
    assert not torch.equal(plain.moving[0], moved.moving[0])


def test_blank_slides_are_refused_by_their_rows(tmp_path):
    with pytest.raises(ManifestError) as caught:
        lesson(write(tmp_path, [160, -160, 160, 160, 160, -160]))
    assert {(problem.row, problem.column) for problem in caught.value.problems} == {
        (row, column) for row in (3, 7) for column in ("fixed", "moving")
    }
    assert "pair t1" in str(caught.value)
    assert "no tissue" in str(caught.value)
    assert "give a mask (fixed_mask)" in str(caught.value)


def test_blank_slides_to_measure_on_are_refused_before_the_training(tmp_path):
    (tmp_path / "other").mkdir()
    held_out = write(tmp_path / "other", [150, -150])
    with pytest.raises(ManifestError, match="row 3, column fixed: pair t1"):
        lesson(write(tmp_path, [160] * 6), held_out)


def test_what_a_model_is_measured_on_is_refused_where_it_is_not_aligned(tmp_path):
    pairs = write(tmp_path, [160] * 6)
    (tmp_path / "other").mkdir()
    held_out = write(tmp_path / "other", [150])
    moving = cv2.imread(str(tmp_path / "other" / "d0.png"), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(tmp_path / "other" / "d0.png"), np.roll(moving, 14, axis=1))
    with pytest.raises(ManifestError, match=r"row 2, column moving: pair t0: the moving image lies .* off") as caught:
        lesson(pairs, held_out, check_alignment=True)
    assert "hold out what is aligned" in str(caught.value)
    made, said, _ = lesson(pairs, held_out)
    assert made.held_out_alignments["t0"].off_px > 6
    assert any(sentence.startswith("held out: pair t0: the moving image lies") for sentence in said)


def test_slides_that_no_run_would_take_the_model_for_are_refused_before_the_training(tmp_path):
    with pytest.raises(ManifestError, match=r"row 2, column moving: pair t0: .* up to 4096, the slide has uint8"):
        lesson(write(tmp_path, [160] * 6), moving={"scaling": "full", "full": 4096})


@pytest.mark.parametrize(
    ("asked", "stained", "on_the_card"),
    [("auto", True, "brightfield"), ("brightfield", True, "brightfield"), ("any", False, "")],
)
def test_colour_images_are_stained_sections_unless_said_otherwise(tmp_path, asked, stained, on_the_card):
    rgb = immunohistochemistry()
    cv2.imwrite(str(tmp_path / "rgb.png"), rgb[..., ::-1])
    cv2.imwrite(str(tmp_path / "d.png"), haematoxylin_dab_channels(rgb)[1])
    (tmp_path / "pairs.csv").write_text(f"{HEADER}\np,rgb.png,d.png,he,dab,0.5,0.5\n")
    made, said, _ = lesson(tmp_path / "pairs.csv", fixed_photometric=asked, moving_photometric=asked)
    assert made.stained == (stained, False)
    assert [card.photometric for card in made.modalities] == [on_the_card, ""]
    assert any("he is taken for stained sections" in sentence for sentence in said) == stained
    assert not any("dab is taken" in sentence for sentence in said)
