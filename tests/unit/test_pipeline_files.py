"""Small files appear whole or not at all."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest

from comir_batch.pipeline.files import (
    read_arrays,
    read_json,
    wait_until_seen,
    write_arrays,
    write_bytes,
    write_json,
    write_text,
)


def test_folders_are_made_and_nothing_else_is_left(tmp_path):
    write_json(tmp_path / "a" / "b.json", {"ä": [1, None]})
    assert read_json(tmp_path / "a" / "b.json") == {"ä": [1, None]}
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.json"]


def test_what_a_killed_writer_left_goes_with_the_next_write(tmp_path, monkeypatch):
    path = tmp_path / "b.json"
    with monkeypatch.context() as context:
        context.setattr(type(path), "replace", lambda *_: None)
        context.setattr(type(path), "unlink", lambda *_, **__: None)
        write_bytes(path, b"half")
    assert [each.name for each in tmp_path.iterdir()] != ["b.json"]
    write_bytes(path, b"whole")
    assert [each.name for each in tmp_path.iterdir()] == ["b.json"]
    assert path.read_bytes() == b"whole"


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", float("nan"))
    assert read_json(tmp_path / "a.json") == 1


def test_a_name_that_utf_8_cannot_carry_is_escaped(tmp_path):
    write_text(tmp_path / "a.csv", os.fsdecode(b"caf\xe9.tif"))
    assert (tmp_path / "a.csv").read_text(encoding="utf-8") == r"caf\udce9.tif"


def test_arrays_come_back_as_they_were(tmp_path):
    arrays = {"a": np.arange(6, dtype=np.uint16).reshape(2, 3), "b": np.zeros((0, 2), bool)}
    write_arrays(tmp_path / "a.npz", **arrays)
    found = read_arrays(tmp_path / "a.npz")
    assert all(
        np.array_equal(found[name], array) and found[name].dtype == array.dtype for name, array in arrays.items()
    )


def test_arrays_of_objects_are_refused(tmp_path):
    with pytest.raises(ValueError, match="Object arrays"):
        write_arrays(tmp_path / "a.npz", a=np.array([{}, None], dtype=object))
    assert not list(tmp_path.iterdir())


def test_a_file_that_comes_late_is_waited_for(tmp_path):
    path = tmp_path / "job" / "a.json"
    writer = threading.Timer(0.3, write_json, (path, 1))
    writer.start()
    wait_until_seen(path)
    assert read_json(path) == 1
    writer.join()


def test_a_file_that_never_comes_is_told_by_who_reads_it(tmp_path):
    path = tmp_path / "a.json"
    wait_until_seen(path, seconds=0.1)
    with pytest.raises(FileNotFoundError):
        read_json(path)
