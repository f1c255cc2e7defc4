"""GeoJSON as QuPath writes it: only positions change, in QuPath's own pixels."""

import gzip
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comir_batch.core.errors import UserError
from comir_batch.core.geometry import Grid
from comir_batch.io import geojson
from comir_batch.io.geojson import Copying, copy_geojson
from comir_batch.io.geojson_features import Frame

_UM = Frame(None)
_POSITION = st.lists(st.floats(-1e5, 1e5).map(lambda value: round(value, 4) + 0.0), min_size=2, max_size=2)
_LINE = st.lists(_POSITION, min_size=2, max_size=5)
_RING = st.lists(_POSITION, min_size=3, max_size=5).map(lambda points: [*points, points[0]])
_SIMPLE = st.one_of(
    st.tuples(st.just("Point"), _POSITION),
    st.tuples(st.sampled_from(["MultiPoint", "LineString"]), _LINE),
    st.tuples(st.just("MultiLineString"), st.lists(_LINE, max_size=3)),
    st.tuples(st.just("Polygon"), st.lists(_RING, max_size=3)),
    st.tuples(st.just("MultiPolygon"), st.lists(st.lists(_RING, max_size=2), max_size=2)),
).map(lambda found: {"type": found[0], "coordinates": found[1], "plane": {"c": -1, "z": 2}})
_GEOMETRY = _SIMPLE | st.lists(_SIMPLE, max_size=2).map(lambda g: {"type": "GeometryCollection", "geometries": g})
_PROPERTIES = st.dictionaries(st.text(), st.none() | st.integers() | st.floats(allow_nan=False) | st.text(), max_size=3)


def feature(geometry, **more):
    return {"type": "Feature", "geometry": geometry, "properties": {}} | more


_FEATURE = st.builds(feature, _GEOMETRY | st.none(), nucleusGeometry=_GEOMETRY, properties=_PROPERTIES)


def polygon(*corners, **more):
    return {"type": "Polygon", "coordinates": [[list(corner) for corner in [*corners, corners[0]]]]} | more


def copied(folder, content, *, change=None, source=_UM, target=_UM, names=("a.geojson", "b.geojson")):
    def same(lines):
        return [points for points, _ in lines]

    path, out = folder / names[0], folder / names[1]
    text = content if isinstance(content, str) else json.dumps(content)
    with gzip.open(path, "wt") if path.suffix == ".gz" else path.open("w") as stream:
        stream.write(text)
    out.unlink(missing_ok=True)
    count = copy_geojson(path, out, Copying(source, target, change or same, lambda _: None))
    return count, json.loads(gzip.open(out).read() if out.suffix == ".gz" else out.read_text())


@settings(max_examples=40, deadline=None)
@given(features=st.lists(_FEATURE, max_size=6), bare=st.booleans(), packed=st.booleans())
def test_nothing_but_positions_is_touched(tmp_path_factory, features, bare, packed):
    folder = tmp_path_factory.mktemp("same")
    content = features if bare else {"type": "FeatureCollection", "features": features, "more": [1]}
    names = ("a.geojson.gz", "b.geojson") if packed else ("a.geojson", "b.geojson.gz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(geojson, "_BATCH_FEATURES", 2)
        count, found = copied(folder, content, names=names)
        assert found == content
        assert (count.features, count.lost) == (len(features), 0)
        _, moved = copied(folder, content, change=lambda lines: [points + np.array([64, -32]) for points, _ in lines])
        _, back = copied(folder, moved, change=lambda lines: [points - np.array([64, -32]) for points, _ in lines])
    assert back == content


def test_qupath_counts_from_the_corner_of_the_first_pixel(tmp_path):
    source, target = Frame(Grid(100, 100, 0.5, 0.25)), Frame(Grid(100, 100, 1.0, 2.0))
    seen = []

    def change(lines):
        seen.extend(points for points, _ in lines)
        return [points + np.array([10.0, 20.0]) for points, _ in lines]

    content = [feature({"type": "Point", "coordinates": [0.5, 4.5]})]
    _, found = copied(tmp_path, content, change=change, source=source, target=target)
    np.testing.assert_array_equal(seen, [[[0.0, 1.0]]])
    assert found[0]["geometry"]["coordinates"] == [10.5, 11.0]


def test_polygons_stay_closed_and_may_get_more_points(tmp_path):
    def halved(lines):
        assert [joined for _, joined in lines] == [True, False]
        return [np.repeat(lines[0][0], 2, axis=0), lines[1][0]]

    points = {"type": "MultiPoint", "coordinates": [[1, 2], [3, 4]]}
    _, found = copied(tmp_path, [feature(polygon((0, 0), (2, 0), (2, 2))), feature(points)], change=halved)
    (ring,) = found[0]["geometry"]["coordinates"]
    assert len(ring) == 8
    assert ring[0] == ring[-1]
    assert found[1]["geometry"] == points


def test_what_is_not_true_any_more_goes(tmp_path):
    ellipse = feature(polygon((0, 0), (2, 0), (2, 2), isEllipse=True, bbox=[0, 0, 2, 2]), bbox=[0, 0, 2, 2])
    _, found = copied(tmp_path, {"type": "FeatureCollection", "bbox": [0, 0, 2, 2], "features": [ellipse]})
    text = json.dumps(found)
    assert "isEllipse" not in text
    assert "bbox" not in text


def test_nan_measurements_pass(tmp_path):
    _, found = copied(tmp_path, [feature(polygon((0, 0), (2, 0), (2, 2)), properties={"m": float("nan")})])
    assert np.isnan(found[0]["properties"]["m"])


def test_a_single_feature_becomes_a_collection(tmp_path):
    one = feature(polygon((0, 0), (2, 0), (2, 2)), id="1")
    assert copied(tmp_path, one)[1] == {"type": "FeatureCollection", "features": [one]}


def test_features_without_a_place_are_left_out_and_counted(tmp_path):
    """Cells lie in the properties of their parents; what has lost its parent goes with it."""

    def change(lines):
        return [np.where(points[:, :1] > 100, np.nan, points) for points, _ in lines]

    def square(x, *below):
        shape = polygon((x, 0), (x + 2, 0), (x + 2, 2))
        return feature(shape, properties={"childObjects": list(below)} if below else {})

    nucleus = feature(square(0)["geometry"], nucleusGeometry=square(200)["geometry"])
    content = [square(0, square(1), square(200)), square(200, square(2), square(3, square(4))), nucleus, square(5)]
    count, found = copied(tmp_path, content, change=change)
    assert found == [square(0, square(1)), square(5)]
    assert (count.features, count.lost) == (9, 6)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no { at character 0"),
        ("[", "Expecting value"),
        ('{"type": "FeatureCollection"}', "it has no features"),
        ('{"features": 3}', "no [ at character"),
        ("[3]", "number 1 is no feature"),
        ('[{"type": "Feature"}]', "number 1 is no feature"),
        ('[{"geometry": {"type": "Circle", "coordinates": [1, 2]}}]', "feature 1: a geometry of type 'Circle'"),
        ('[{"geometry": {"type": "Point", "coordinates": [1, 2, 3]}}]', "feature 1: a position is not two numbers"),
        ('[{"geometry": {"type": "Point", "coordinates": ["a", 2]}}]', "feature 1: a position is not two numbers"),
        ('[{"geometry": {"type": "Point", "coordinates": [NaN, 2]}}]', "feature 1: a position is not two numbers"),
        ('[{"geometry": null}] []', "more than one value"),
        ('[{"geometry": null}, {"geometry": nul', "Expecting value at character 34"),
        ("[" * 100_000, "not GeoJSON"),
    ],
)
def test_what_is_no_geojson_is_refused_and_leaves_nothing(tmp_path, text, said):
    with pytest.raises(UserError, match=r"a\.geojson") as caught:
        copied(tmp_path, text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a.geojson"]


def test_files_that_are_not_what_their_names_say(tmp_path):
    nothing = Copying(_UM, _UM, list, lambda _: None)
    (tmp_path / "text.geojson.gz").write_text("[]")
    (tmp_path / "cut.geojson.gz").write_bytes(gzip.compress(b"[]" * 1000)[:20])
    (tmp_path / "packed.geojson").write_bytes(gzip.compress(b"[]"))
    for name in ("text.geojson.gz", "cut.geojson.gz", "packed.geojson"):
        with pytest.raises(UserError, match="damaged, or not packed as its name says"):
            copy_geojson(tmp_path / name, tmp_path / "b.geojson", nothing)
    with pytest.raises(UserError, match="No such file"):
        copy_geojson(tmp_path / "none.geojson", tmp_path / "b.geojson", nothing)
    with pytest.raises(UserError, match="not GeoJSON by its name"):
        copy_geojson(tmp_path / "text.geojson.gz", tmp_path / "b.txt", nothing)
