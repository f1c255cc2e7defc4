import numpy as np
import pytest

from comir_batch.core.errors import UserError
from comir_batch.core.geometry import Grid
from comir_batch.io.tables import check_points, read_points

_GRID = Grid(100, 100, 0.5, 0.25)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x_um,y_um\n1,2\n3.5,-4e1\n", [[1, 2], [3.5, -40]]),
        ("x_px,y_px\n1,2\n3,4\n", [[0.5, 0.5], [1.5, 1.0]]),
        ("\ufeffx_um, y_um\r\n1,2\r\n\r\n", [[1, 2]]),
    ],
)
def test_points_come_in_micrometres(tmp_path, text, expected):
    (tmp_path / "p.csv").write_text(text, encoding="utf-8")
    points = read_points(tmp_path / "p.csv", _GRID)
    assert points.dtype == np.float64
    check_points(tmp_path / "p.csv")
    np.testing.assert_array_equal(points, expected)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (",X,Y\n0,1,2\n", "header is ,X,Y. Write x_um,y_um or x_px,y_px"),
        ("y_um,x_um\n1,2\n", "header is y_um,x_um"),
        ("", "header is "),
        ("x_um,y_um\n", "no points"),
        ("x_um,y_um\n1,2\n1;2\n", "row 3 is 1;2"),
        ("x_um,y_um\n1,2,3\n", "row 2 is 1,2,3"),
        ("x_um,y_um\n1,nan\n", "not finite"),
        ("x_um,y_um\n\xff\n", "not a CSV in UTF-8"),
    ],
)
def test_anything_else_is_refused(tmp_path, text, said):
    (tmp_path / "p.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"p\.csv") as caught:
        read_points(tmp_path / "p.csv", _GRID)
    assert said in str(caught.value)
    with pytest.raises(UserError):
        check_points(tmp_path / "p.csv")


def test_missing(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        read_points(tmp_path / "p.csv", _GRID)
