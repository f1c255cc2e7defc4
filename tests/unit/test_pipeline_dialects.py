"""Every dialect maps the same 10,000 points as the transform does, read by its own convention, in both directions."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import zarr
from scipy import ndimage
from scipy.interpolate import RBFInterpolator, RegularGridInterpolator

from comir_batch.core.errors import UserError
from comir_batch.core.geometry import Grid
from comir_batch.core.transform import Affine, BSpline, Composite, from_dict
from comir_batch.io.displacement_file import read_mha
from comir_batch.pipeline.conversion import write, write_sidecars
from comir_batch.pipeline.dialects import DIALECTS, dialect_named
from comir_batch.pipeline.encoding import Job
from comir_batch.registration.elastix_maps import read_chain

GRIDS = {"fixed": Grid(2000, 1600, 0.5, 0.52), "moving": Grid(4600, 4400, 0.25, 0.24)}
TURN = Affine(np.array([[0.05, -1.02], [0.98, 0.04]]), np.array([880.0, 20.0]))
# name: largest error of a bent transform in µm, one way and the other; None where only an affine is held
BENT = {
    "json": (1e-9, 0.02),
    "itk": (1e-6, 0.02),
    "elastix": (1e-9, 0.02),
    "mha": (0.02, 0.03),
    "ngff": (0.02, 0.03),
    "warpy": (0.5, 0.5),
    "napari": (None, None),
    "napari-px": (None, None),
    "qupath": (None, None),
}


def _bent():
    noise = np.random.default_rng(3).normal(size=(2, 22, 24))
    smooth = ndimage.gaussian_filter(noise, (0, 1.5, 1.5))
    bend = BSpline(np.array([-160.0, -160.0]), np.array([64.0, 64.0]), 8 * smooth / smooth.std())
    return Composite((TURN, Affine(np.eye(2), np.array([0.0, 5.0])), bend))


TRANSFORMS = {"affine": Composite((TURN, Affine(np.diag([1.01, 0.99]), np.array([3.0, -2.0])))), "bent": _bent()}


def _points(transform, *, forward):
    """Return 10,000 points of the source slide and where they belong."""
    grid = GRIDS["fixed"]
    fixed = grid.to_um(np.random.default_rng(7).uniform(-0.5, [grid.width - 0.5, grid.height - 0.5], (10_000, 2)))
    moving = transform.map(fixed)
    return (fixed, moving) if forward else (moving, fixed)


def _written(tmp_path, name, transform, *, forward, **options):
    dialect = DIALECTS[name]
    path = tmp_path / f"{forward}-{dialect.file}"
    return path, write(Job(transform, forward, GRIDS.get, **options), dialect, path)


def _itk(path, points):
    theirs = sitk.ReadTransform(str(path))
    return np.array([theirs.TransformPoint(point) for point in points.tolist()])


def _mha(path, points):
    theirs = sitk.DisplacementFieldTransform(sitk.ReadImage(str(path), sitk.sitkVectorFloat64))
    return np.array([theirs.TransformPoint(point) for point in points.tolist()])


def _json(path, points):
    return from_dict(json.loads(path.read_text()) | {"maps": "fixed to moving"}).map(points)


def _elastix(path, points):
    return read_chain(sorted(path.glob("*.txt"))).map(points)


def _scene(path, points):
    scene = json.loads((path / "zarr.json").read_text())["attributes"]["ome"]["scene"]
    step = scene["coordinateTransformations"][0]
    yx = points[:, ::-1]
    if step["type"] == "affine":
        matrix = np.array(step["affine"])
        return (yx @ matrix[:, :2].T + matrix[:, 2])[:, ::-1]
    folder = path / step["path"]
    image = json.loads((folder / "zarr.json").read_text())["attributes"]["ome"]["multiscales"][0]
    scale, shift = (s[s["type"]][1:] for s in image["datasets"][0]["coordinateTransformations"][0]["transformations"])
    vectors = zarr.open_array(folder / image["datasets"][0]["path"], mode="r")[:]
    axes = [np.arange(n) * s + t for n, s, t in zip(vectors.shape[1:], scale, shift, strict=True)]
    moved = yx + RegularGridInterpolator(axes, np.moveaxis(vectors, 0, -1), method="linear")(yx)
    return moved[:, ::-1]


def _napari(path, points):
    matrix = np.array(json.loads(path.read_text())["affine"])
    rows = np.column_stack([points[:, ::-1], np.ones(len(points))]) @ matrix.T
    return rows[:, 1::-1]


def _in_pixels(read, centre):
    def mapped(path, points):
        source, target = json.loads(path.read_text())["maps"].split(" to ")
        return GRIDS[target].to_um(read(path, GRIDS[source].to_pixels(points) + centre) - centre)

    return mapped


def _qupath(path, points):
    m = json.loads(path.read_text())
    x, y = points.T
    return np.column_stack([m["m00"] * x + m["m01"] * y + m["m02"], m["m10"] * x + m["m11"] * y + m["m12"]])


def _warpy(path, points):
    """Apply ImgLib2's transforms as Warpy does, to pixels of QuPath; the file's name tells the direction."""
    source, target = ("fixed", "moving") if path.name.startswith("True") else ("moving", "fixed")
    at = GRIDS[source].to_pixels(points) + 0.5
    document = json.loads(path.read_text())
    assert document["type"] == "InvertibleRealTransformSequence"
    for number in range(document["size"]):
        at = _real_transform(document[f"realTransform_{number}"], at)
    return GRIDS[target].to_um(at - 0.5)


def _real_transform(step, at):
    if step["type"] == "AffineTransform3D":
        rows = np.reshape(step["affinetransform3d"], (3, 4))
        return (np.column_stack([at, np.zeros(len(at)), np.ones(len(at))]) @ rows.T)[:, :2]
    if step["type"] == "ThinplateSplineTransform":
        source, target = np.transpose(step["srcPts"]), np.transpose(step["tgtPts"])
        return RBFInterpolator(source, target, kernel="thin_plate_spline", degree=1)(at)
    assert step["type"] in {"Wrapped2DTransformAs3D", "WrappedIterativeInvertibleRealTransform"}
    return _real_transform(step["wrappedTransform"], at)


READERS = {
    "json": _json,
    "itk": _itk,
    "elastix": _elastix,
    "mha": _mha,
    "ngff": _scene,
    "warpy": _warpy,
    "napari": _napari,
    "napari-px": _in_pixels(_napari, 0.0),
    "qupath": _in_pixels(_qupath, 0.5),
}


@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize("name", DIALECTS)
def test_an_affine_is_held_exactly(tmp_path, name, forward):
    transform = TRANSFORMS["affine"]
    path, written = _written(tmp_path, name, transform, forward=forward)
    source, target = _points(transform, forward=forward)
    assert np.abs(READERS[name](path, source) - target).max() < 1e-6
    assert written.max_um < 1e-9
    assert written.lost == 0


@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize("name", DIALECTS)
def test_a_bent_transform_is_held_as_well_as_is_said(tmp_path, name, forward):
    transform = TRANSFORMS["bent"]
    path, written = _written(tmp_path, name, transform, forward=forward)
    source, target = _points(transform, forward=forward)
    distance = np.linalg.norm(READERS[name](path, source) - target, axis=1)
    assert distance.max() <= 1.3 * written.max_um + 1e-6
    assert np.median(distance) == pytest.approx(written.median_um, rel=0.1, abs=1e-6)
    limit = BENT[name][not forward]
    assert (5 < written.max_um < 60) if limit is None else written.max_um <= limit


def test_every_dialect_is_tested_here():
    assert set(BENT) == set(READERS) == set(DIALECTS)


def test_a_denser_field_is_closer_and_reads_back(tmp_path):
    transform = TRANSFORMS["bent"]
    source, target = _points(transform, forward=True)
    errors = []
    for number, spacing in enumerate((32.0, 8.0)):
        path = tmp_path / f"{number}.mha"
        errors.append(write(Job(transform, True, GRIDS.get, spacing), DIALECTS["mha"], path).max_um)  # noqa: FBT003
        assert np.abs(read_mha(path).map(source) - target).max() <= 1.3 * errors[-1]
    assert errors[1] < errors[0] / 8


def test_points_beyond_a_field_count_in_its_error_and_map_as_itk_maps_them(tmp_path):
    transform = Composite((Affine(np.eye(2), np.array([400.0, 0.0])),))
    path, written = _written(tmp_path, "mha", transform, forward=False)
    source, target = _points(transform, forward=False)
    theirs = _mha(path, source)
    np.testing.assert_allclose(read_mha(path).map(source), theirs, atol=1e-9)
    distance = np.linalg.norm(theirs - target, axis=1)
    assert distance.max() == pytest.approx(400)
    assert written.max_um == pytest.approx(400)
    assert written.median_um == pytest.approx(np.median(distance), abs=1e-9)


def test_more_landmarks_are_closer_and_too_many_are_refused(tmp_path):
    job = Job(TRANSFORMS["bent"], True, GRIDS.get, 25.0)  # noqa: FBT003
    assert write(job, DIALECTS["warpy"], tmp_path / "dense.json").max_um < 0.12
    with pytest.raises(UserError, match="landmarks are more than"):
        write(Job(TRANSFORMS["bent"], True, GRIDS.get, 5.0), DIALECTS["warpy"], tmp_path / "w.json")  # noqa: FBT003


def test_the_matrix_in_a_file_stands_beside_its_convention_and_error(tmp_path):
    path, written = _written(tmp_path, "qupath", TRANSFORMS["bent"], forward=True)
    document = json.loads(path.read_text())
    assert document["maps"] == "fixed to moving"
    assert (document["unit"], document["pixel_centre"]) == ("pixel", 0.5)
    assert document["error_um"] == {"median": written.median_um, "max": written.max_um}


def test_our_json_of_the_other_direction_is_not_taken_for_a_transform_of_ours(tmp_path):
    path, _ = _written(tmp_path, "json", TRANSFORMS["affine"], forward=False)
    with pytest.raises(ValueError, match="moving to fixed"):
        from_dict(json.loads(path.read_text()))


def test_folds_are_counted_where_an_inverse_is_written(tmp_path):
    coefficients = np.zeros((2, 24, 24))
    coefficients[0, 4:20, 10:13] = [120.0, 0.0, -120.0]
    pinch = Composite((BSpline(np.array([-100.0, -100.0]), np.array([100.0, 100.0]), coefficients),))
    _, forward = _written(tmp_path, "itk", pinch, forward=True)
    _, back = _written(tmp_path, "itk", pinch, forward=False)
    assert forward.lost == 0 < back.lost < 2000
    assert back.max_um > 5


def test_what_would_be_too_far_off_is_refused_and_nothing_is_written(tmp_path):
    job = Job(TRANSFORMS["bent"], True, GRIDS.get)  # noqa: FBT003
    with pytest.raises(UserError, match=r"more than the 1 µm asked for"):
        write(job, DIALECTS["qupath"], tmp_path / "q.json", tolerance_um=1.0)
    assert not list(tmp_path.iterdir())
    write(job, DIALECTS["warpy"], tmp_path / "w.json", tolerance_um=1.0)


@pytest.mark.parametrize(
    ("name", "file", "message"),
    [
        ("itk", "t.txt", r"ends in .h5 or .hdf5 or .tfm"),
        ("json", "taken.json", "is there already"),
        ("ngff", "taken.zarr", "is there already"),
        ("json", "nowhere/t.json", "no folder"),
    ],
)
def test_a_path_that_cannot_be_is_refused(tmp_path, name, file, message):
    (tmp_path / "taken.json").write_text("mine")
    (tmp_path / "taken.zarr").mkdir()
    with pytest.raises(UserError, match=message):
        write(Job(TRANSFORMS["affine"], True, GRIDS.get), DIALECTS[name], tmp_path / file)  # noqa: FBT003
    assert (tmp_path / "taken.json").read_text() == "mine"


def test_a_slide_that_is_wanted_and_not_known_is_told(tmp_path):
    nothing = Job(TRANSFORMS["bent"], True, {}.get)  # noqa: FBT003
    pixels = Job(TRANSFORMS["bent"], True, {s: Grid(1, 1, 0.5, 0.5) for s in ("fixed", "moving")}.get)  # noqa: FBT003
    with pytest.raises(UserError, match="size of the fixed slide"):
        write(nothing, DIALECTS["napari"], tmp_path / "n.json")
    with pytest.raises(UserError, match="size of the fixed slide"):
        write(pixels, DIALECTS["qupath"], tmp_path / "q.json")
    affine = Job(TRANSFORMS["affine"], True, {}.get)  # noqa: FBT003
    with pytest.raises(UserError, match="pixel size of the fixed slide"):
        write(affine, DIALECTS["qupath"], tmp_path / "q.json")
    write(affine, DIALECTS["napari"], tmp_path / "n.json")


def test_a_field_that_would_fill_the_memory_is_refused(tmp_path):
    with pytest.raises(UserError, match="samples is too large"):
        write(Job(TRANSFORMS["bent"], True, GRIDS.get, 0.01), DIALECTS["mha"], tmp_path / "f.mha")  # noqa: FBT003


def test_an_unknown_dialect_is_told_with_those_that_there_are():
    with pytest.raises(UserError, match=r"no dialect 'qpath'.*qupath"):
        dialect_named("qpath")


def test_sidecars_come_with_their_conventions(tmp_path):
    told = write_sidecars(TRANSFORMS["bent"], ("napari", "warpy"), tmp_path, GRIDS.get)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["napari.json", "warpy.json"]
    assert [(entry["file"], entry["maps"]) for entry in told] == [
        ("napari.json", "moving to fixed"),
        ("warpy.json", "fixed to moving"),
    ]


def test_scenes_follow_the_specification(tmp_path):
    """ngff-zarr, where it is installed, has the specification's own schemas."""
    ngff_zarr = pytest.importorskip("ngff_zarr")
    for name, transform in TRANSFORMS.items():
        path = tmp_path / f"{name}.ome.zarr"
        write(Job(transform, True, GRIDS.get), DIALECTS["ngff"], path)  # noqa: FBT003
        attributes = json.loads((path / "zarr.json").read_text())["attributes"]
        ngff_zarr.validate(attributes, version="0.6", model="scene")
        assert ngff_zarr.from_ome_zarr(str(path), kind="scene").coordinateSystems[1].name == "moving"
    field = ngff_zarr.from_ngff_zarr(str(path / "coordinateTransformations" / "displacements"), validate=True)
    assert field.images[0].axes_types == {"c": "displacement"}
