import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from comir_batch.core.errors import UserError
from comir_batch.core.transform import Affine, BSpline, Composite
from comir_batch.io.transform_files import read_json, read_transform, write_itk, write_json


def _random(seed=0):
    rng = np.random.default_rng(seed)
    first = Affine(np.eye(2) + rng.normal(0, 0.1, (2, 2)), rng.normal(0, 50, 2))
    spline = BSpline(np.array([-150.0, -260.0]), np.array([90.0, 110.0]), rng.normal(0, 8, (2, 17, 14)))
    last = Affine(np.array([[0.0, -1.0], [1.0, 0.0]]), np.array([3.0, -4.0]))
    return Composite((first, spline, last))


def _inside(composite, count=10_000):
    """Points that the first part maps into the B-spline's support."""
    first, spline = composite.parts[0], composite.parts[1]
    size = np.array(spline.coefficients.shape[:0:-1])
    unit = np.random.default_rng(1).uniform(1.001, size - 2.001, (count, 2))
    return first.inverse().map(spline.origin + unit * spline.spacing)


@pytest.mark.parametrize("suffix", [".h5", ".tfm"])
def test_itk_maps_points_as_we_do_and_reads_back(tmp_path, suffix):
    ours, path = _random(), tmp_path / f"a transform{suffix}"
    write_itk(ours, path)
    theirs = sitk.ReadTransform(str(path))
    points = _inside(ours)
    mapped = np.array([theirs.TransformPoint(point) for point in points.tolist()])
    assert np.abs(mapped - ours.map(points)).max() < 1e-6
    back = read_transform(path)
    assert [type(part) for part in back.parts] == [Affine, BSpline, Affine]
    np.testing.assert_allclose(back.map(points), ours.map(points), rtol=0, atol=1e-9)
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name]


def test_outside_the_support_itk_moves_no_more_than_we_do(tmp_path):
    spline = Composite((_random().parts[1],))
    write_itk(spline, tmp_path / "t.h5")
    theirs = sitk.ReadTransform(str(tmp_path / "t.h5"))
    for point in ([-1000.0, 0.0], [-70.0, 100.0], [5000.0, 5000.0]):
        np.testing.assert_allclose(theirs.TransformPoint(point), spline.map([point])[0], atol=1e-6)


def _itk_transforms():
    euler = sitk.Euler2DTransform((10.0, 20.0), 0.3, (4.0, 5.0))
    similarity = sitk.Similarity2DTransform(1.2, -0.4, (4.0, 5.0), (100.0, -50.0))
    affine = sitk.AffineTransform((1.1, 0.2, -0.1, 0.9), (3.0, 2.0), (40.0, 30.0))
    translation = sitk.TranslationTransform(2, (7.0, -8.0))
    inner = sitk.CompositeTransform([euler, similarity])
    nested = sitk.CompositeTransform([affine, inner, translation, sitk.Transform(2, sitk.sitkIdentity)])
    return {"euler": euler, "similarity": similarity, "affine": affine, "translation": translation, "nested": nested}


@pytest.mark.parametrize("suffix", [".h5", ".tfm"])
@pytest.mark.parametrize("name", ["euler", "similarity", "affine", "translation", "nested"])
def test_reads_what_itk_writes(tmp_path, name, suffix):
    theirs = _itk_transforms()[name]
    if name == "nested":
        theirs.FlattenTransform()  # ITK's files cannot nest
    sitk.WriteTransform(theirs, str(tmp_path / f"t{suffix}"))
    ours = read_transform(tmp_path / f"t{suffix}")
    points = np.random.default_rng(0).uniform(-500, 500, (200, 2))
    expected = [theirs.TransformPoint(point) for point in points.tolist()]
    np.testing.assert_allclose(ours.map(points), expected, atol=1e-9)


def _refused():
    rotated = sitk.BSplineTransform(2, 3)
    rotated.SetFixedParameters([5, 5, 0, 0, 1, 1, 0, -1, 1, 0])
    return {
        "3 dimensions": sitk.AffineTransform(3),
        "ScaleTransform": sitk.ScaleTransform(2, (2.0, 2.0)),
        "order 2": sitk.BSplineTransform(2, 2),
        "directions": rotated,
    }


@pytest.mark.parametrize("reason", ["3 dimensions", "ScaleTransform", "order 2", "directions"])
def test_other_kinds_are_refused_by_name(tmp_path, reason):
    sitk.WriteTransform(_refused()[reason], str(tmp_path / "t.h5"))
    with pytest.raises(UserError, match=rf"t\.h5: .*{reason}.*\. Convert") as caught:
        read_transform(tmp_path / "t.h5")
    assert "\n" not in str(caught.value)


def test_json_is_lossless(tmp_path):
    ours = _random()
    write_json(ours, tmp_path / "transform.json")
    assert read_json(tmp_path / "transform.json").to_dict() == ours.to_dict()
    assert read_transform(tmp_path / "transform.json").to_dict() == ours.to_dict()


@pytest.mark.parametrize("name", ["none.json", "none.h5", "bad.json", "list.json", "bad.h5", "bad.tfm", "other.json"])
def test_bad_files_are_one_line(tmp_path, name):
    texts = {"bad.json": "{", "list.json": "[1]", "bad.h5": "x" * 999, "bad.tfm": "hello", "other.json": '{"a": 1}'}
    if name in texts:
        (tmp_path / name).write_text(texts[name])
    with pytest.raises(UserError) as caught:
        read_transform(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_cut_tfm_is_refused_wherever_it_ends(tmp_path):
    write_itk(_random(), tmp_path / "whole.tfm")
    text, path = (tmp_path / "whole.tfm").read_text(), tmp_path / "cut.tfm"
    first = text.index("\nTransform")
    between = {text.index(f"#Transform {number}") for number in (2, 3)} | {len(text)}
    for end in [*range(first + 20, len(text), 97), *range(len(text) - 200, len(text) + 1)]:
        path.write_text(text[:end])
        if end in between or end + 1 in between:  # as a file of fewer transforms ends
            continue
        with pytest.raises(UserError, match=r"cut\.tfm: damaged or cut short: .*\. Write it again") as caught:
            read_transform(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [("Parameters: 0.3 4 5", "Parameters: 0.3 4"), ("FixedParameters: 1 2\n", ""), ("#Transform 0", "#Transform 1")],
)
def test_a_tfm_that_lacks_something_is_refused_before_itk_reads_it(tmp_path, old, new):
    path = tmp_path / "t.tfm"
    sitk.WriteTransform(sitk.Euler2DTransform((1.0, 2.0), 0.3, (4.0, 5.0)), str(path))
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError, match=r"t\.tfm: damaged"):
        read_transform(path)


@pytest.mark.parametrize(
    "text",
    [
        "Transform: TranslationTransform_double_2_2\nParameters: 7 8\nFixedParameters:",
        "# by hand\r\nTransform: TranslationTransform_double_2_2\r\nFixedParameters: \r\nParameters: 7 8\r\n\r\n",
        "#Transform 0\nTransform: AffineTransform_double_2_2\nParameters: 1 0 0 1 7 8\nFixedParameters: 100 100",
    ],
)
def test_a_tfm_by_other_hands_is_read(tmp_path, text):
    (tmp_path / "t.tfm").write_bytes(text.encode())
    np.testing.assert_allclose(read_transform(tmp_path / "t.tfm").map([[1.0, 2.0]]), [[8.0, 10.0]])


@pytest.mark.parametrize("suffix", [".h5", ".tfm"])
def test_no_parts_are_written_as_an_identity(tmp_path, suffix):
    write_itk(Composite(), tmp_path / f"t{suffix}")
    np.testing.assert_array_equal(read_transform(tmp_path / f"t{suffix}").map([[3.0, 4.0]]), [[3.0, 4.0]])
    assert len(read_transform(tmp_path / f"t{suffix}").parts) == 1


def test_what_itk_wrote_in_part_does_not_get_the_name(tmp_path, monkeypatch):
    def cut(transform, path, write=sitk.WriteTransform):
        write(transform, path)
        with open(path, "r+b") as stream:  # noqa: PTH123  as a full disk leaves it
            stream.truncate(300)

    monkeypatch.setattr(sitk, "WriteTransform", cut)
    with pytest.raises(OSError, match=r"does not read back: .*t\.tfm"):
        write_itk(_random(), tmp_path / "t.tfm")
    assert not list(tmp_path.iterdir())
