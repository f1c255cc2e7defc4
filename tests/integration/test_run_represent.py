"""The represent stage through the whole pipeline: blocks, stitched, equal the network on the whole slide."""

from __future__ import annotations

import csv

import numpy as np
import torch
from skimage.data import immunohistochemistry

from comir_batch.bench.known_motion import write_pyramid
from comir_batch.core.config_file import load_config
from comir_batch.core.events import EventBus
from comir_batch.core.geometry import Grid, Region
from comir_batch.execution.serial import SerialExecutor
from comir_batch.io.zarr_array import ZarrArray
from comir_batch.pipeline.files import read_json
from comir_batch.pipeline.graph import build_jobs
from comir_batch.pipeline.inference import inference
from comir_batch.pipeline.layout import Layout, SlideFiles
from comir_batch.pipeline.run import RunRequest, inspect_request, run
from comir_batch.pipeline.stages.chunk import tissue_blocks
from comir_batch.pipeline.stages.represent import RepresentWork
from comir_batch.representation.inference import reflected
from comir_batch.representation.normalise import Range, to_input
from comir_batch.representation.store import find_model
from comir_batch.representation.weights import load
from comir_batch.training.ihc import MPP, haematoxylin_dab_channels

SIZE = (407, 331)  # odd, and not a multiple of the stride or the shard


def whole(work: RepresentWork) -> np.ndarray:
    """Run the network once over the whole chunked slide, continued by reflection as the definition says."""
    ranges = [Range(*limits) for limits in read_json(work.files.ranges)]
    network = load(find_model(str(work.model)), work.card.modality, "cpu", "float32")
    grid = work.working.grid
    pixels = to_input(
        ZarrArray.open(work.source.pixels).read(Region(0, 0, grid.width, grid.height)), work.card.input, ranges
    )
    rows, columns = (
        reflected(-network.halo, size + network.halo + -size % network.stride, size)
        for size in (grid.height, grid.width)
    )
    with torch.inference_mode():
        result = network._network(torch.from_numpy(pixels[:, rows[:, None], columns])[None])[0].numpy()
    return result[:, network.halo : network.halo + grid.height, network.halo : network.halo + grid.width]


def test_stitched_blocks_equal_the_whole(tmp_path):
    channels = haematoxylin_dab_channels(immunohistochemistry())[:, : SIZE[1], : SIZE[0]]
    grid = Grid(*SIZE, MPP, MPP)
    names = ("haematoxylin", "dab")
    for name, image in zip(names, channels, strict=True):
        write_pyramid(np.ascontiguousarray(image[None]), grid, tmp_path / f"{name}.ome.tif", [name])
    manifest = tmp_path / "manifest.csv"
    with manifest.open("w", newline="") as stream:
        csv.writer(stream).writerows(
            [
                ["pair_id", "fixed", "moving", "fixed_modality", "moving_modality"],
                ["ihc", "haematoxylin.ome.tif", "dab.ome.tif", *names],
            ]
        )
    settings = {"represent": {"dtype": "float32"}, "chunk": {"shard": 128, "chunk": 32}, "execution": {"device": "cpu"}}
    config, layout = load_config(None, settings), Layout(tmp_path / "run")
    run(RunRequest(manifest, layout.root, config, target="represent"), EventBus(), lambda _: SerialExecutor())

    pairs = inspect_request(manifest, config, skip_bad_rows=False).pairs
    jobs = build_jobs(pairs, config, layout, inference(config.execution, None))
    works = [job.work for job in jobs.values() if isinstance(job.work, RepresentWork)]
    assert [work.card.modality for work in works] == list(names)
    for work in works:
        stitched, reference = ZarrArray.open(SlideFiles(work.folder).pixels), whole(work)
        blocks = tissue_blocks(work.source, work.working, work.blocks, margin_px=16)
        assert len(blocks) == 12
        for _, region in blocks:
            difference = stitched.read(region) - reference[:, *region.slices]
            assert np.abs(difference).max() <= 1e-5
