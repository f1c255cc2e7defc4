import os

import pytest

from comir_batch.core.errors import UnreadableSlideError
from comir_batch.io import digest
from comir_batch.io.digest import slide_digest


def test_small_files_are_their_content(tmp_path):
    for name, content in [("a", b"x" * 99), ("b", b"x" * 99), ("c", b"x" * 98 + b"y")]:
        (tmp_path / name).write_bytes(content)
    os.utime(tmp_path / "b", (0, 0))
    assert slide_digest(tmp_path / "a") == slide_digest(tmp_path / "b") != slide_digest(tmp_path / "c")
    assert len(slide_digest(tmp_path / "a")) == 64


def test_large_files_are_size_time_and_samples(tmp_path, monkeypatch):
    monkeypatch.setattr(digest, "_WHOLE", 2**20)
    path = tmp_path / "large"
    path.write_bytes(bytes(8 * 2**20))
    os.utime(path, (1, 1))
    before = slide_digest(path)
    assert slide_digest(path) == before
    for where in (0, 8 * 2**20 - 1):
        with path.open("r+b") as stream:
            stream.seek(where)
            stream.write(b"!")
        os.utime(path, (1, 1))
        changed = slide_digest(path)
        assert changed != before
        before = changed
    os.utime(path, (2, 2))
    assert slide_digest(path) != before


def test_a_folder_changes_with_any_file_in_it(tmp_path):
    folder = tmp_path / "x.ome.zarr"
    (folder / "0" / "c").mkdir(parents=True)
    (folder / "zarr.json").write_text("{}")
    (folder / "0" / "c" / "0").write_bytes(b"pixels")
    seen = {slide_digest(folder)}
    (folder / "zarr.json").write_text('{"a": 1}')
    seen.add(slide_digest(folder))
    (folder / "0" / "c" / "1").write_bytes(b"more")
    seen.add(slide_digest(folder))
    assert len(seen) == 3
    assert slide_digest(folder) in seen


def test_missing(tmp_path):
    with pytest.raises(UnreadableSlideError, match="none: No such file"):
        slide_digest(tmp_path / "none")
