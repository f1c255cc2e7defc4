"""What cannot be written for want of room says so, whoever writes it, and leaves nothing on the disk that is full."""

from __future__ import annotations

import json
import sys

import runs

WRITERS = """
import json, sys
from pathlib import Path
import numpy as np
from comir_batch.core.approximation import DisplacementField
from comir_batch.core.geometry import Grid, Region
from comir_batch.core.task import Task
from comir_batch.core.transform import BSpline, Composite
from comir_batch.execution.call import run_task
from comir_batch.io.displacement_file import write_mha
from comir_batch.io.ngff_scene import write_scene
from comir_batch.io.ome_tiff_writer import TiffImage, write_ome_tiff
from comir_batch.io.transform_files import write_itk, write_json
from comir_batch.io.zarr_array import ZarrArray

full, elsewhere = map(Path, sys.argv[1:3])
noise = np.random.default_rng(0)
transform = Composite((BSpline(np.zeros(2), np.ones(2), noise.normal(size=(2, 60, 60))),))
field = DisplacementField(Grid(200, 200, 1.0, 1.0), noise.normal(size=(2, 200, 200)))
pixels = ZarrArray.create(elsewhere / "pixels", (1, 512, 512), "uint8", chunk=256, shard=512)
pixels.write(Region(0, 0, 512, 512), noise.integers(0, 255, (1, 512, 512), dtype="u1"))
image = TiffImage("a", Grid(512, 512, 0.5, 0.5), ("0",))
writers = {
    "h5": lambda _: write_itk(transform, full / "t.h5"),
    "tfm": lambda _: write_itk(transform, full / "t.tfm"),
    "json": lambda _: write_json(transform, full / "t.json"),
    "mha": lambda _: write_mha(field, full / "f.mha"),
    "ngff": lambda _: write_scene(field, full / "s.ome.zarr", source="fixed", target="moving"),
    "deflate": lambda _: write_ome_tiff([pixels], full / "i.ome.tif", image, "deflate"),
    "none": lambda _: write_ome_tiff([pixels], full / "i.ome.tif", image, "none"),
}
for name, writer in writers.items():
    outcome = run_task(Task(name, writer, None))
    print(json.dumps([name, outcome.disk_full, outcome.error, [path.name for path in full.iterdir()]]))
"""

CONVERT = """
import json, os, sys
from pathlib import Path
import numpy as np
import SimpleITK
from typer.testing import CliRunner
from comir_batch.cli.app import app
from comir_batch.core.geometry import Grid
from comir_batch.core.transform import BSpline, Composite
from comir_batch.bench.known_motion import write_pyramid
from comir_batch.io.transform_files import write_json

full, elsewhere = map(Path, sys.argv[1:3])
bend = BSpline(np.full(2, -30.0), np.full(2, 10.0), np.random.default_rng(0).normal(size=(2, 60, 60)))
write_json(Composite((bend,)), elsewhere / "bend.json")
slide = elsewhere / "fixed.ome.tif"
write_pyramid(np.zeros((1, 500, 600), np.uint8), Grid(600, 500, 0.5, 0.5), slide, ["0"])
files = {"t.json": "json", "t.h5": "itk", "t.tfm": "itk", "t": "elastix", "t.mha": "mha", "t.zarr": "ngff"}
files["w.json"] = "warpy"
for name, dialect in files.items():
    sys.stdout.flush()
    child = os.fork()
    if not child:  # how the process ends counts, too
        words = ["transform", "convert", elsewhere / "bend.json", full / name, "--to", dialect]
        done = CliRunner().invoke(app, [*map(str, words), "--fixed", str(slide), "--moving-mpp", "0.5"])
        (elsewhere / "said").write_text(done.stderr)
        sys.exit(done.exit_code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(json.dumps([name, code, (elsewhere / "said").read_text(), [path.name for path in full.iterdir()]]))
"""


def told_on_a_disk(size, script, folder):
    """Run a script with a disk of so much room and a folder elsewhere; return what its lines of JSON say."""
    disk, program = folder / "disk", folder / "script.py"
    disk.mkdir()
    runs.skip_without_small_disks(disk)
    program.write_text(script)
    done = runs.in_namespace(
        f"mount -t tmpfs -o size={size} tmpfs {disk} && {sys.executable} {program} {disk} {folder}"
    )
    assert done.stdout, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_writer_tells_a_full_disk_and_leaves_no_part_of_a_file(tmp_path):
    told = told_on_a_disk("40k", WRITERS, tmp_path)
    assert [name for name, *_ in told] == ["h5", "tfm", "json", "mha", "ngff", "deflate", "none"]
    for name, disk_full, error, left in told:
        assert disk_full, (name, error)
        assert not left, name


def test_convert_says_in_a_line_that_the_disk_is_full_and_leaves_nothing(tmp_path):
    told = told_on_a_disk("16k", CONVERT, tmp_path)
    assert len(told) == 7
    for name, code, said, left in told:
        assert code == 75, (name, said)
        assert said.startswith("comir-batch: stopped by the operating system: "), name
        assert said.endswith("Make room; start again\n"), name
        assert said.count("\n") == 1, name
        assert not left, name
