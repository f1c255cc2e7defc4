"""Made-up slides: the truth is the truth, pyramids are whole, and no more is read at once than a block shows."""

import csv
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from comir_batch.bench import slides
from comir_batch.bench.known_motion import write_pyramid
from comir_batch.bench.mirrored import MirroredSlide
from comir_batch.bench.recovery import AlignedPair
from comir_batch.cli.app import app
from comir_batch.core.geometry import Grid, Region
from comir_batch.core.manifest import read_manifest
from comir_batch.core.slide import Level, SlideInfo, SlideSpec
from comir_batch.io.open import open_slide
from comir_batch.io.transform_files import read_json
from comir_batch.warp.reduce import reduce_area

WIDTH, HEIGHT, MPP, SIDE = 211, 150, 0.5, 530


class Watched:
    """A slide in memory that keeps the regions that were read."""

    def __init__(self, pixels):
        self.pixels, self.seen = pixels, []
        _, height, width = pixels.shape
        names = tuple(f"c{k}" for k in range(len(pixels)))
        self.info = SlideInfo((Level(width, height, 1.0, 1.0),), names, pixels.dtype.name, MPP, MPP, "dark", "memory")

    def read(self, region):
        self.seen.append(region)
        return self.pixels[:, *region.slices]

    def close(self):
        pass


@pytest.fixture(scope="module")
def tissue():
    """Smooth 8-bit tissue with a dark border."""
    coarse = np.random.default_rng(1).integers(40, 255, (3, HEIGHT // 10, WIDTH // 10)).astype(np.float32)
    fine = np.kron(coarse, np.ones((1, 10, 10), np.float32))
    out = np.zeros((3, HEIGHT, WIDTH), np.uint8)
    smooth = (fine[:, :-5, :-5] + fine[:, 5:, 5:] + fine[:, 5:, :-5] + fine[:, :-5, 5:]) / 4
    out[:, 8 : 8 + smooth.shape[1] - 10, 8 : 8 + smooth.shape[2] - 10] = smooth[:, :-10, :-10]
    return out


@pytest.fixture
def pair(tissue, tmp_path):
    paths = []
    for name in ("one", "other"):
        paths.append(tmp_path / f"{name}.ome.tif")
        write_pyramid(tissue, Grid(WIDTH, HEIGHT, MPP, MPP), paths[-1], ["red", "green", "blue"])
    return AlignedPair(*paths, ("one", "other"))


def request(pair, out, **more):
    settings = {"side": SIDE, "format": "ome-tiff", "compression": "deflate", "amplitude_um": 4.0}
    return slides.SlidesRequest(pair, out=out, **settings | more)


def opened(path):
    return open_slide(SlideSpec(path))


def test_mirrored_tiles_are_those_of_a_symmetric_padding(tissue):
    slide = MirroredSlide(Watched(tissue), SIDE)
    expected = np.pad(tissue, ((0, 0), (0, SIDE - HEIGHT), (0, SIDE - WIDTH)), mode="symmetric")
    for region in (Region(0, 0, SIDE, SIDE), Region(190, 140, 470, 320), Region(529, 3, 530, 4)):
        assert np.array_equal(slide.read(region), expected[:, *region.slices])
    points = np.random.default_rng(0).integers(0, SIDE, (50, 2))
    x, y = slide.origins(points).round().astype(int).T
    assert np.array_equal(tissue[:, y, x], expected[:, points[:, 1], points[:, 0]])
    with pytest.raises(ValueError, match="leaves the square"):
        slide.read(Region(0, 0, SIDE + 1, 5))


def test_no_more_is_read_of_the_source_than_a_region_shows(tissue):
    source = Watched(tissue)
    MirroredSlide(source, 100_000).read(Region(99_000, 50_000, 99_064, 50_064))
    assert sum(seen.width * seen.height for seen in source.seen) == 64**2


def test_the_truth_says_where_pixels_and_landmarks_lie(pair, tmp_path):
    manifest = slides.build_slides(request(pair, tmp_path / "out"), lambda _: None)
    (row,) = read_manifest(manifest).rows
    truth = read_json(tmp_path / "out" / "truth.json")
    fixed, moving = (
        np.loadtxt(path, delimiter=",", skiprows=1) for path in (row.fixed_landmarks, row.moving_landmarks)
    )
    assert np.abs(truth.map(fixed) - moving).max() < 1e-3
    assert len(fixed) == slides.LANDMARKS
    whole = Region(0, 0, SIDE, SIDE)
    with open_slide(row.fixed) as one, open_slide(row.moving) as other:
        here, there = one.read(whole).astype(float), other.read(whole).astype(float)
    (x, y), (u, v) = ((points / MPP).round().astype(int).T for points in (fixed, moving))
    assert np.median(np.abs(here[:, y, x] - there[:, v, u])) <= 3
    assert np.median(np.abs(here[:, y, x] - there[:, y, x])) > 10
    assert (here[:, y, x].max(axis=0) > 0).mean() > 0.9  # on tissue
    assert json.loads((tmp_path / "out" / "about.json").read_text())["layout"].startswith("made up")


@pytest.mark.parametrize("kind", slides.FORMATS)
def test_slides_are_written_block_by_block_with_whole_pyramids(pair, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(slides, "_CHUNK", 64)
    monkeypatch.setattr(slides, "_SHARD", 256)
    largest = []
    read = MirroredSlide.read

    def watched(self, region):
        largest.append(region.width * region.height)
        return read(self, region)

    monkeypatch.setattr(MirroredSlide, "read", watched)
    said = []
    slides.build_slides(request(pair, tmp_path / "out", format=kind), said.append)
    assert max(largest) < 400**2  # a block, or what it shows of the moving slide turned
    for path in (request(pair, tmp_path / "out", format=kind).path(side) for side in slides.SIDES):
        with opened(path) as slide:
            assert [(level.width, level.height) for level in slide.info.levels] == [(530, 530), (265, 265)]
            assert slide.info.is_rgb
            fine = slide.read(Region(0, 0, SIDE, SIDE))
            assert np.array_equal(slide.read(Region(0, 0, 265, 265, 1)), reduce_area(fine, 2))
    assert said[0] == "fixed: 0 %"
    assert not list((tmp_path / "out").glob(".*"))


def test_the_same_request_makes_the_same_files_and_another_seed_others(pair, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        slides.build_slides(request(pair, tmp_path / name, side=300, compression="jpeg", seed=seed), lambda _: None)
    first, again, other = ((tmp_path / name / "moving.ome.tif").read_bytes() for name in "abc")
    assert first == again != other


def test_what_cannot_be_built_is_refused_in_a_line(pair, tmp_path, tissue):
    def refused(*more):
        words = ["bench", "slides", str(pair.fixed), *more, "--modalities", "a", "b", "--side", "64"]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 3
        return result.stderr

    assert "not an empty folder" in refused(str(pair.moving), "--out", str(tmp_path))
    small = tmp_path / "small.ome.tif"
    write_pyramid(tissue[:, :100, :100], Grid(100, 100, MPP, MPP), small, ["red", "green", "blue"])
    assert "211 x 150 and 100 x 100" in refused(str(small), "--out", str(tmp_path / "out"))


def test_the_command_writes_a_manifest(pair, tmp_path):
    out = tmp_path / "out"
    words = [str(pair.fixed), str(pair.moving), "--modalities", "one", "other", "--side", "300", "--out", str(out)]
    result = CliRunner().invoke(app, ["bench", "slides", *words, "--format", "ome-zarr"])
    assert result.exit_code == 0, result.output
    assert "made up" in result.stdout
    with (out / "manifest.csv").open(encoding="utf-8") as stream:
        (row,) = csv.DictReader(stream)
    assert (row["pair_id"], row["moving"]) == ("made-up-300", "moving.ome.zarr")
