"""Landmarks give the transform that they were made with, the best one where they are inexact, or one clear error."""

import csv

import numpy as np
import pytest
from typer.testing import CliRunner

from comir_batch.cli.app import app
from comir_batch.core.errors import UserError
from comir_batch.core.point_fit import fit_points
from comir_batch.core.transform import Affine
from comir_batch.io.transform_files import read_transform

POINTS = np.random.default_rng(0).uniform(0, 1000, (12, 2))
TURN = np.array([[np.cos(2.5), -np.sin(2.5)], [np.sin(2.5), np.cos(2.5)]])
FLIP = np.diag([-1.0, 1.0])


@pytest.mark.parametrize(
    ("kind", "matrix", "mirrored"),
    [
        ("rigid", TURN, False),
        ("rigid", TURN @ FLIP, True),
        ("similarity", 1.3 * TURN, False),
        ("similarity", 0.7 * TURN @ FLIP, True),
        ("affine", np.array([[1.1, 0.2], [-0.1, 0.9]]), False),
    ],
)
def test_exact_landmarks_give_their_transform(kind, matrix, mirrored):
    truth = Affine(matrix, np.array([30.0, -400.0]))
    found = fit_points(kind, POINTS, truth.map(POINTS), mirrored=mirrored)
    np.testing.assert_allclose(found.matrix, matrix, atol=1e-9)
    np.testing.assert_allclose(found.offset, truth.offset, atol=1e-6)


@pytest.mark.parametrize("kind", ["rigid", "similarity", "affine"])
def test_no_neighbouring_transform_is_nearer_to_inexact_landmarks(kind):
    moving = Affine(TURN, np.zeros(2)).map(POINTS) + np.random.default_rng(1).normal(0, 20, POINTS.shape)

    def distance(transform):
        return float(((transform.map(POINTS) - moving) ** 2).sum())

    found = fit_points(kind, POINTS, moving, mirrored=False)
    angle = 1e-3
    nudge = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    others = [Affine(nudge @ found.matrix, found.offset), Affine(nudge.T @ found.matrix, found.offset)]
    others += [Affine(found.matrix, found.offset + step) for step in np.vstack([np.eye(2), -np.eye(2)])]
    others += [Affine(scale * found.matrix, found.offset) for scale in (0.999, 1.001) if kind != "rigid"]
    assert distance(found) < min(map(distance, others))
    if kind == "rigid":
        np.testing.assert_allclose(np.linalg.svd(found.matrix)[1], 1.0)


@pytest.mark.parametrize(
    ("kind", "fixed", "moving", "said"),
    [
        ("rigid", POINTS[:1], POINTS[:1], "1 fixed and 1 moving points"),
        ("affine", POINTS[:2], POINTS[:2], "3 at least"),
        ("rigid", POINTS[:4], POINTS[:3], "as many of both"),
        ("rigid", np.ones((3, 2)), POINTS[:3], "Spread them"),
        ("affine", np.outer([1.0, 2.0, 3.0], [1.0, 1.0]), POINTS[:3], "Spread them"),
    ],
)
def test_what_does_not_tell_a_transform_is_refused(kind, fixed, moving, said):
    with pytest.raises(UserError, match=said):
        fit_points(kind, fixed, moving, mirrored=False)


def test_the_command_writes_what_a_manifest_takes(tmp_path):
    def written(name, header, points):
        with (tmp_path / name).open("w", newline="") as stream:
            csv.writer(stream).writerows([header, *points.tolist()])
        return str(tmp_path / name)

    truth = Affine(TURN, np.array([3.0, 4.0]))
    fixed = written("fixed.csv", ["x_px", "y_px"], POINTS / 0.5)
    moving = written("moving.csv", ["x_um", "y_um"], truth.map(POINTS))
    words = ["transform", "fit", fixed, moving, str(tmp_path / "t.json")]
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 3
    assert "pixel size is not known" in refused.output
    done = CliRunner().invoke(app, [*words, "--fixed-mpp", "0.5"])
    assert done.exit_code == 0, done.output
    assert "rigid, 12 points" in done.output
    np.testing.assert_allclose(read_transform(tmp_path / "t.json").map(POINTS), truth.map(POINTS), atol=1e-6)
    assert CliRunner().invoke(app, [*words, "--fixed-mpp", "0.5"]).exit_code == 3
    nowhere = CliRunner().invoke(app, [*words[:-1], str(tmp_path / "nosuch" / "t.json"), "--fixed-mpp", "0.5"])
    assert nowhere.exit_code == 3
    assert "nosuch: no such folder" in nowhere.stderr
