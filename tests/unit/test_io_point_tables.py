"""Tables of points: units that are told, rows that are named, other columns untouched."""

import csv
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comir_batch.core.errors import UserError
from comir_batch.io import point_tables
from comir_batch.io.point_tables import create_table, read_chunks


def copy(source, out, move=lambda points: points, unit=None):
    with create_table(out) as sink:
        for chunk in read_chunks(source):
            sink.write(chunk.moved(move(chunk.points), unit or chunk.unit).columns)


def rows(path):
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(-1e6, 1e6),
            st.text(st.characters(codec="utf-8", exclude_characters="\0")),
            st.floats(-1e6, 1e6),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_copies_of_copies_are_the_same(tmp_path_factory, table):
    folder = tmp_path_factory.mktemp("tables")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(point_tables, "CHUNK_ROWS", 5)
        with (folder / "a.csv").open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([("x_px", "words", "y_px"), *table])
        for source, out in [("a.csv", "b.parquet"), ("b.parquet", "c.parquet"), ("c.parquet", "d.csv")]:
            copy(folder / source, folder / out)
    found = rows(folder / "d.csv")
    assert found[0] == ["x_px", "words", "y_px"]
    assert [(float(x), words, float(y)) for x, words, y in found[1:]] == table


def test_parquet_keeps_types(tmp_path):
    table = pa.table(
        {
            "id": pa.array([3, 1, 2], pa.uint16()),
            "y_um": pa.array([1.5, None, 2.5], pa.float32()),
            "kind": pa.array(["a", "b", "a"]).dictionary_encode(),
            "when": pa.array([1, 2, None], pa.timestamp("ns")),
            "x_um": pa.array([1, None, 3], pa.int32()),
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    copy(tmp_path / "a.parquet", tmp_path / "b.parquet", lambda points: points * 2, "px")
    found = pyarrow.parquet.read_table(tmp_path / "b.parquet")
    assert found.column_names == ["id", "y_px", "kind", "when", "x_px"]
    for name in ("id", "kind", "when"):
        assert found[name].equals(table[name])
    assert found["x_px"].to_pylist() == [2.0, None, 6.0]
    assert found["y_px"].to_pylist() == [3.0, None, 5.0]
    copy(tmp_path / "b.parquet", tmp_path / "c.csv")
    first = rows(tmp_path / "c.csv")[1]
    assert first == ["3", "3.0", "a", "1970-01-01 00:00:00.000000001", "2.0"]


def test_what_csv_cannot_hold(tmp_path):
    pyarrow.parquet.write_table(pa.table({"x_um": [1], "y_um": [2], "all": [[1, 2]]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="column all of type list"):
        copy(tmp_path / "a.parquet", tmp_path / "b.csv")


def test_points_without_a_place_are_empty_cells(tmp_path):
    (tmp_path / "a.csv").write_text("\ufeffid,x_um,y_um\r\n1,2,3\r\n\r\n2,,\r\n3,nan,nan\r\n", encoding="utf-8")
    (chunk,) = read_chunks(tmp_path / "a.csv")
    np.testing.assert_array_equal(chunk.points, [[2, 3], [np.nan] * 2, [np.nan] * 2])
    copy(tmp_path / "a.csv", tmp_path / "b.csv")
    assert rows(tmp_path / "b.csv") == [["id", "x_um", "y_um"], ["1", "2.0", "3.0"], ["2", "", ""], ["3", "", ""]]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_without_rows_keeps_its_columns(tmp_path, kind):
    (tmp_path / "a.csv").write_text("a,x_um,y_um\n")
    copy(tmp_path / "a.csv", tmp_path / f"b.{kind}", unit="px")
    copy(tmp_path / f"b.{kind}", tmp_path / "c.csv")
    assert rows(tmp_path / "c.csv") == [["a", "x_px", "y_px"]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x,y\n1,2\n", "columns x,y do not say their unit"),
        ("id,Y,X\n1,2,3\n", "columns Y,X do not say their unit"),
        ("a,b\n1,2\n", "its columns are a,b"),
        ("", "its columns are "),
        ("x_um,y_px\n1,2\n", "its columns are x_um,y_px"),
        ("x_um,y_um,x_px,y_px\n1,2,3,4\n", "both x_um,y_um and x_px,y_px"),
        ("x_um,y_um,a,a\n1,2,3,4\n", "stands twice"),
        ("x_um,y_um\n1,2\n1;2\n", "row 3 has 1 cells"),
        ("x_um,y_um\n1,2\n1,zwei\n", "row 3 has 'zwei'"),
        ("x_um,y_um\n1,\n", "row 2 has the point 1,nan"),
        ("x_um,y_um\n1,inf\n", "row 2 has the point 1,inf"),
        ("x_um,y_um\n\xff,1\n", "not a CSV in UTF-8"),
    ],
)
def test_what_is_not_clear_is_refused(tmp_path, text, said):
    (tmp_path / "a.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"a\.csv") as caught:
        copy(tmp_path / "a.csv", tmp_path / "b.csv")
    assert said in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_parquet_that_is_none(tmp_path):
    (tmp_path / "a.parquet").write_text("no")
    pyarrow.parquet.write_table(pa.table({"x_um": ["1"], "y_um": ["2"]}), tmp_path / "text.parquet")
    for name, said in [("a", "not a Parquet file"), ("text", "of type string"), ("none", "No such file")]:
        with pytest.raises(UserError, match=said):
            copy(tmp_path / f"{name}.parquet", tmp_path / "b.csv")


def test_parquet_without_its_library(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.csv").write_text("x_um,y_um\n1,2\n")
    with pytest.raises(UserError, match=r"b\.parquet: Parquet needs pyarrow.*comir-batch\[parquet\]"):
        copy(tmp_path / "a.csv", tmp_path / "b.parquet")


@pytest.mark.parametrize("name", ["a.txt", "a", "a.xlsx"])
def test_other_names_are_refused(tmp_path, name):
    with pytest.raises(UserError, match="not a table of points"):
        list(read_chunks(tmp_path / name))
