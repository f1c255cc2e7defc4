"""The manifest: what is right is read, and everything that is wrong is named at once."""

from __future__ import annotations

import csv
import io

import pytest

from comir_batch.core.errors import ManifestError
from comir_batch.core.manifest import REQUIRED, read_manifest

GOOD = {"pair_id": "p-1", "fixed": "a.tif", "moving": "b.tif", "fixed_modality": "dapi", "moving_modality": "tritc"}


def write(path, *rows, columns=None, encoding="utf-8"):
    columns = columns or list(dict.fromkeys(name for row in rows for name in row))
    stream = io.StringIO(newline="")
    table = csv.DictWriter(stream, columns)
    table.writeheader()
    table.writerows(rows)
    path.write_bytes(stream.getvalue().encode(encoding))
    return path


def problems_of(tmp_path, *rows):
    return read_manifest(write(tmp_path / "m.csv", *rows)).problems


def refused(path):
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    return caught.value.problems


def test_a_row_is_read_with_paths_relative_to_the_manifest(tmp_path):
    (row,) = read_manifest(write(tmp_path / "m.csv", GOOD | {"fixed_modality": " DAPI ", "fixed_mpp": "0.25"})).rows
    assert row.fixed.path == tmp_path.resolve() / "a.tif"
    assert row.fixed.mpp == 0.25
    assert row.moving.mpp is None
    assert (row.fixed_modality, row.moving_modality) == ("dapi", "tritc")
    assert (row.row, row.registration, row.model) == (2, "bspline", "")


def test_every_optional_column_is_understood(tmp_path):
    more = {
        "fixed_channel": "1",
        "moving_channel": "TRITC",
        "fixed_series": "2",
        "moving_series": "0",
        "fixed_photometric": "brightfield",
        "moving_photometric": "",
        "fixed_mpp": "0.5",
        "moving_mpp": "1e-1",
        "model": "none",
        "registration": "affine",
        "fixed_mask": "m.png",
        "moving_mask": "/abs/n.png",
        "initial_transform": "t.json",
        "fixed_landmarks": "f.csv",
        "moving_landmarks": "g.csv",
    }
    (row,) = read_manifest(write(tmp_path / "m.csv", GOOD | more)).rows
    assert (row.fixed.channel, row.fixed.series, row.moving.mpp) == ("1", 2, 0.1)
    assert row.fixed_mask == tmp_path.resolve() / "m.png"
    assert str(row.moving_mask) == "/abs/n.png"
    assert row.registration == "affine"
    assert (row.fixed.photometric, row.moving.photometric) == ("brightfield", "")


@pytest.mark.parametrize("name", ['it\'s "one".tif', "slide, final (2).tif", "schnitt-ä-切片.tif", "  inside  .tif"])
def test_nasty_names_of_files_are_kept(tmp_path, name):
    (row,) = read_manifest(write(tmp_path / "m.csv", GOOD | {"fixed": name})).rows
    assert row.fixed.path.name == name.strip()


def test_a_byte_order_mark_blank_lines_and_windows_line_ends_do_not_matter(tmp_path):
    path = write(tmp_path / "m.csv", GOOD, encoding="utf-8-sig")
    path.write_bytes(path.read_bytes() + b"\r\n,,,,\r\n")
    assert len(read_manifest(path).rows) == 1


@pytest.mark.parametrize("name", REQUIRED)
def test_a_missing_column_is_named(tmp_path, name):
    row = {key: value for key, value in GOOD.items() if key != name}
    (problem,) = refused(write(tmp_path / "m.csv", row))
    assert (problem.row, problem.column) == (1, name)
    assert "missing" in problem.reason


def test_unknown_and_repeated_columns_are_named_together(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text(",".join([*REQUIRED, "colour", "fixed", ""]) + "\n" + "x," * 7 + "x\n")
    assert {(p.column, p.reason) for p in refused(path)} == {
        ("colour", "unknown column"),
        ("-", "unknown column"),
        ("fixed", "the column stands twice"),
    }


@pytest.mark.parametrize("content", [b"", b"pair_id,fixed,moving,fixed_modality,moving_modality\n", b"\n\n"])
def test_a_table_without_rows_is_refused(tmp_path, content):
    (tmp_path / "m.csv").write_bytes(content)
    (problem,) = refused(tmp_path / "m.csv")
    assert "has no rows" in problem.reason


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"\xff\xfep\x00a\x00", "is not a CSV in UTF-8"), (b'pair_id\n"a\n', "is not a CSV"), (b"a\0b\nc\n", "")],
)
def test_what_is_not_a_table_is_refused_in_one_line(tmp_path, content, reason):
    (tmp_path / "m.csv").write_bytes(content)
    problems = refused(tmp_path / "m.csv")
    assert reason in problems[0].reason
    assert "\n" not in str(problems[0])


def test_a_missing_manifest_and_a_folder_are_refused(tmp_path):
    assert "No such file" in refused(tmp_path / "none.csv")[0].reason
    assert "Is a directory" in refused(tmp_path)[0].reason


@pytest.mark.parametrize(
    ("cells", "column", "reason"),
    [
        ({"pair_id": ""}, "pair_id", "the cell is empty"),
        ({"pair_id": "a/b"}, "pair_id", "'a/b' cannot be the name of a folder"),
        ({"pair_id": ".."}, "pair_id", "cannot be the name"),
        ({"pair_id": "x" * 101}, "pair_id", "cannot be the name"),
        ({"fixed": ""}, "fixed", "the cell is empty"),
        ({"moving_modality": " "}, "moving_modality", "(got"),
        ({"fixed_mpp": "0"}, "fixed_mpp", "greater than 0"),
        ({"fixed_mpp": "-0.5"}, "fixed_mpp", "greater than 0"),
        ({"moving_mpp": "half"}, "moving_mpp", "(got 'half')"),
        ({"moving_mpp": "nan"}, "moving_mpp", "(got 'nan')"),
        ({"moving_mpp": "0,25"}, "moving_mpp", "(got '0,25')"),
        ({"moving_mpp": "5000"}, "moving_mpp", "less than 1000"),
        ({"fixed_series": "-1"}, "fixed_series", "greater than or equal to 0"),
        ({"fixed_series": "1.5"}, "fixed_series", "(got '1.5')"),
        ({"registration": "rigid"}, "registration", "'rigid'"),
        ({"moving_photometric": "bright"}, "moving_photometric", "'bright'"),
        ({"fixed": "a\nb.tif"}, "fixed", "a control character in 'a\\nb.tif'"),
        ({"moving": "a\tb.tif"}, "moving", "a control character"),
        ({"moving": "a.tif"}, "moving", "fixed and moving are the same image"),
        ({"moving": "./x/../a.tif"}, "moving", "fixed and moving are the same image"),
    ],
)
def test_a_bad_cell_is_one_problem_with_row_column_and_remedy(tmp_path, cells, column, reason):
    (problem,) = problems_of(tmp_path, GOOD | {"pair_id": "first"}, GOOD | cells)
    assert (problem.row, problem.column) == (3, column)
    assert reason in problem.reason
    assert problem.remedy
    assert "\n" not in str(problem)


def test_two_channels_of_one_file_are_a_pair(tmp_path):
    row = GOOD | {"moving": "a.tif", "fixed_channel": "0", "moving_channel": "1"}
    assert not problems_of(tmp_path, row)


def test_a_pair_id_counts_once_whatever_its_case(tmp_path):
    manifest = read_manifest(write(tmp_path / "m.csv", GOOD, GOOD | {"pair_id": "P-1"}, GOOD | {"pair_id": "p-2"}))
    (problem,) = manifest.problems
    assert (problem.row, problem.column) == (3, "pair_id")
    assert "row 2" in problem.reason
    assert [row.pair_id for row in manifest.rows] == ["p-1", "p-2"]


def test_a_wrong_number_of_cells_says_what_may_be_the_reason(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text(",".join(REQUIRED) + "\np1,a,b.tif,c.tif,dapi,tritc\np2,a.tif,b.tif\n")
    first, second = read_manifest(path).problems
    assert (first.row, first.reason, first.remedy) == (
        2,
        "has 6 cells, the header 5",
        "Quote cells that contain a comma",
    )
    assert (second.row, second.remedy) == (3, "Write a comma for each empty cell")


def test_blank_rows_count_as_they_do_in_a_spreadsheet(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text(",".join(REQUIRED) + "\np1,a.tif,b.tif,dapi,tritc\n\n,,,,\na/b,a.tif,b.tif,dapi,tritc\n")
    (problem,) = read_manifest(path).problems
    assert problem.row == 5


def test_all_problems_of_all_rows_are_collected(tmp_path):
    rows = [
        GOOD | {"fixed_mpp": "0", "moving_mpp": "x", "registration": "none"},
        GOOD | {"pair_id": "p-2", "fixed_mpp": "", "moving_mpp": "", "registration": ""},
        GOOD | {"pair_id": "p 3", "fixed": "", "fixed_mpp": "", "moving_mpp": "", "registration": ""},
    ]
    manifest = read_manifest(write(tmp_path / "m.csv", *rows))
    assert [(p.row, p.column) for p in manifest.problems] == [
        *((2, "fixed_mpp"), (2, "moving_mpp"), (2, "registration")),
        *((4, "pair_id"), (4, "fixed")),
    ]
    assert [row.pair_id for row in manifest.rows] == ["p-2"]
