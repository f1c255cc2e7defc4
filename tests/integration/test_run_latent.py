"""A model with several latent channels, through the whole pipeline."""

from __future__ import annotations

import json

import numpy as np
import pytest
import runs
from safetensors.torch import load_file
from skimage.data import immunohistochemistry

from comir_batch.bench.known_motion import move, write_pyramid
from comir_batch.core.transform import from_dict
from comir_batch.representation.network import DenseUNet
from comir_batch.representation.store import find_model
from comir_batch.representation.weights import save
from comir_batch.training.ihc import haematoxylin_dab_channels

NAMES = ("haematoxylin", "dab")


@pytest.fixture
def three_channels(tmp_path):
    """The shipped model for the two stains, its one channel spread over three: nothing of it, twice, and minus once."""
    shipped = find_model("haematoxylin-dab")
    tensors, networks, parts = load_file(shipped.folder / "weights.safetensors"), {}, []
    for part in shipped.card.modalities:
        architecture = part.architecture.model_copy(update={"latent_channels": 3})
        state = {key.split(".", 1)[1]: value for key, value in tensors.items() if key.startswith(f"{part.modality}.")}
        head = state["head.weight"]
        network = DenseUNet(architecture)
        network.load_state_dict(state | {"head.weight": head.new_tensor([0, 2, -1])[:, None, None, None] * head})
        networks[part.modality] = network
        parts.append(part.model_copy(update={"architecture": architecture}))
    save(tmp_path / "three", shipped.card.model_copy(update={"modalities": tuple(parts), "name": "three"}), networks)
    return tmp_path / "three"


@pytest.mark.slow
def test_three_channels_register_as_the_one_that_they_hold(tmp_path, three_channels):
    stains = np.zeros((2, *runs.GRID.shape), np.uint8)
    tissue = haematoxylin_dab_channels(immunohistochemistry())[:, : runs.TISSUE.height, : runs.TISSUE.width]
    stains[:, *runs.TISSUE.slices] = tissue
    moved, grid, truth = move(stains[1:], runs.GRID, runs.MOTION)
    write_pyramid(stains[:1], runs.GRID, tmp_path / "fixed.ome.tif", ["haematoxylin"])
    write_pyramid(moved, grid, tmp_path / "moving.ome.tif", ["dab"])
    manifest = runs.write_manifest(tmp_path / "m.csv", f"p1,fixed.ome.tif,moving.ome.tif,{','.join(NAMES)}")
    points, errors = runs.tissue_points(), []
    for number, model in enumerate(("haematoxylin-dab", str(three_channels))):
        out = tmp_path / str(number)
        assert runs.run_here(manifest, out, target="register", model=model).exit_code == 0
        (folder,) = (out / "work").glob("register-*")
        assert json.loads((folder / "registration.json").read_text())["view"] == "comir"
        found = from_dict(json.loads((folder / "transform.json").read_text()))
        errors.append(float(np.linalg.norm(found.map(points) - truth.map(points), axis=1).mean()))
    assert errors[0] < 1.0  # µm; 0.27 as this was written
    assert abs(errors[1] - errors[0]) < 0.05
