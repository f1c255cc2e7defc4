"""Records: torn lines, one driver at a time, and who wrote a file last."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from comir_batch.core.errors import RunDirectoryError
from comir_batch.core.task import Outcome, Resource
from comir_batch.pipeline.job import Job
from comir_batch.pipeline.layout import Layout
from comir_batch.pipeline.records import Records, read_history


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path / "run")


def job(layout, name="warp", number="1", output="out"):
    return Job(name, number, None, Resource.CPU, ("p",), (layout.root / output,))


def finish(records, what, *tasks):
    records.started(what, fresh=True)
    for path in what.outputs:
        path.mkdir(parents=True, exist_ok=True)
    for task in tasks:
        records.task_done(what, Outcome(task, value={"n": task}, seconds=1.5, peak_mb=len(tasks)))


def test_what_is_written_is_known_to_the_next_driver(layout):
    mine = job(layout)
    with Records(layout, print) as records:
        finish(records, mine, "t1", "t2")
        records.job_done(mine, 1.5)
    with Records(layout, print) as records:
        record = records.history.of(mine.key)
        assert records.history.is_done(mine, layout.root)
    assert (record.done, record.seconds, record.peak_mb, record.value) == (True, 3.0, 2, {"n": "t2"})
    assert read_history(layout.records).of("another").tasks == {}


@pytest.mark.parametrize("torn", [b'{"kind": "done", "jo', b'{"kind": "done", "job": "warp-1"}', b"\x00\x00"])
def test_a_torn_last_line_is_dropped_and_written_over(layout, torn):
    mine = job(layout)
    with Records(layout, print) as records:
        finish(records, mine, "t1")
    with layout.records.open("ab") as stream:
        stream.write(torn)
    assert not read_history(layout.records).of(mine.key).done
    with Records(layout, print) as records:
        assert records.history.is_resumable(mine, layout.root)
        records.job_done(mine, 1.5)
    assert [json.loads(line)["kind"] for line in layout.records.read_text().splitlines()] == ["start", "task", "done"]


def test_a_job_whose_output_is_gone_is_neither_done_nor_resumable(layout):
    mine = job(layout)
    with Records(layout, print) as records:
        finish(records, mine, "t1")
        assert records.history.is_resumable(mine, layout.root)
        mine.outputs[0].rmdir()
        assert not records.history.is_resumable(mine, layout.root)
        records.job_done(mine, 1.5)
        assert not records.history.is_done(mine, layout.root)
        mine.outputs[0].mkdir()
        assert records.history.is_done(mine, layout.root)


def test_what_a_task_names_must_be_there_too(layout):
    mine = job(layout)
    made = layout.root / "image"
    with Records(layout, print) as records:
        finish(records, mine)
        made.mkdir()
        records.task_done(mine, Outcome("t1", value={"files": ["image"]}))
        records.task_done(mine, Outcome("t2", value=None))
        records.job_done(mine, 1.5)
        assert records.history.is_done(mine, layout.root)
        made.rmdir()
        assert not records.history.is_done(mine, layout.root)


def test_a_job_that_others_wrote_over_counts_no_more(layout):
    first, second = job(layout, number="1"), job(layout, number="2")
    with Records(layout, print) as records:
        finish(records, first)
        records.job_done(first, 1.5)
        records.started(second, fresh=True)
        assert not records.history.is_done(first, layout.root)
    with Records(layout, print) as records:
        assert not records.history.is_done(first, layout.root)
        assert records.history.is_resumable(second, layout.root)


def test_a_failure_that_wrote_over_a_file_takes_it_away(layout):
    first, second = job(layout), job(layout, "register", "2", "other")
    with Records(layout, print) as records:
        finish(records, first)
        records.job_done(first, 1.5)
        records.started(second, fresh=True)
        records.job_failed(second, "no tissue", [layout.root / "out"])
    with Records(layout, print) as records:
        assert not records.history.is_done(first, layout.root)
        assert not records.history.of(second.key).done


def test_a_fresh_start_forgets_finished_tasks_and_a_resumed_one_keeps_them(layout):
    mine = job(layout)
    with Records(layout, print) as records:
        finish(records, mine, "t1")
        records.started(mine, fresh=False)
        assert set(records.history.of(mine.key).tasks) == {"t1"}
        records.started(mine, fresh=True)
        assert not records.history.of(mine.key).tasks


def test_a_second_driver_is_refused_and_told_who_holds_the_run(layout):
    program = (
        "import sys; from pathlib import Path; from comir_batch.pipeline.layout import Layout;"
        "from comir_batch.pipeline.records import Records\n"
        "try: Records(Layout(Path(sys.argv[1])), print)\n"
        "except Exception as error: print(type(error).__name__, error)"
    )

    def second() -> str:
        return subprocess.run(
            [sys.executable, "-c", program, str(layout.root)], capture_output=True, text=True, check=True
        ).stdout

    with Records(layout, print):
        answer = second()
    assert answer.startswith(f"RunDirectoryError {layout.root} is in use by process ")
    assert second() == ""


def test_a_run_directory_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunDirectoryError, match="Not a directory"):
        Records(Layout(tmp_path / "file" / "run"), print)
    with pytest.raises(RunDirectoryError, match="File exists"):
        Records(Layout(tmp_path / "file"), print)
