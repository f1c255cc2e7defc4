"""What the command line prints: tables, progress, failures."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys

import pytest
import typer
from rich.console import Console
from rich.progress import Progress
from typer.testing import CliRunner

from comir_batch.cli import app
from comir_batch.cli.failures import exit_codes
from comir_batch.cli.progress import Bars, Lines, describe
from comir_batch.cli.tables import print_table
from comir_batch.core.errors import (
    ConfigError,
    ManifestError,
    NoWorkersError,
    Problem,
    RunDirectoryError,
    StoppedError,
    TaskError,
)
from comir_batch.core.events import Event, Kind
from comir_batch.core.transform import Composite
from comir_batch.io.transform_files import write_json

LONG = "x" * 500
JOB = {"stage": "chunk", "pairs": ("a", "b"), "job": "chunk-3fa2c1d0"}


def tasks(planned: int, done: int) -> list[Event]:
    started = Event(Kind.JOB_STARTED, **JOB, at=0.0)
    return [
        started,
        Event(Kind.TASKS_PLANNED, **JOB, data={"tasks": planned}, at=0.0),
        *(
            Event(Kind.TASK_DONE, **JOB, data={"task": str(n), "seconds": 1.0, "peak_mb": 9, "worker": "w"}, at=n)
            for n in range(done)
        ),
    ]


EVENTS = [
    Event(Kind.DASHBOARD, data={"address": "http://127.0.0.1:9/status", "tunnel": "ssh -N there"}),
    *tasks(40, 35),
    Event(Kind.TASK_RETRIED, **JOB, data={"task": "t", "message": "the worker was lost"}),
    Event(Kind.JOB_FAILED, **JOB, data={"message": "no {braces} and [markup] harm"}),
    Event(Kind.JOB_SKIPPED, **JOB, data={"reason": "rejected"}),
    Event(Kind.PAIR_DONE, pairs=("a",), data={"verdict": "review", "reasons": ("First.", "Second.")}),
    Event(Kind.PAIR_DONE, pairs=("b",), data={"verdict": "", "reasons": ()}),
    Event(Kind.RUN_DONE, data={"verdicts": {}, "seconds": 1.0}),
]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("a"), 3),
        (RunDirectoryError("a"), 3),
        (NoWorkersError("a"), 5),
        (StoppedError("a", 75), 75),
        (StoppedError("a", 143), 143),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_errors_have_their_exit_codes_and_one_message(error, code, capsys):
    with pytest.raises(typer.Exit) as left, exit_codes():
        raise error
    assert left.value.exit_code == code
    assert capsys.readouterr() == ("", "comir-batch: a\n")


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, 75),
        (errno.EDQUOT, 75),
        (errno.EFBIG, 75),
        (errno.EIO, 75),
        (errno.ESTALE, 75),
        (errno.EMFILE, 75),
        (errno.EACCES, 3),
        (errno.EPERM, 3),
        (errno.EROFS, 3),
    ],
    ids=lambda value: errno.errorcode[value] if value not in (75, 3) else str(value),
)
def test_a_full_disk_can_be_resumed_and_a_forbidden_folder_is_bad_input(number, code, capsys):
    with pytest.raises(typer.Exit) as left, exit_codes():
        raise OSError(number, os.strerror(number), "/run/x")
    assert left.value.exit_code == code
    assert f"{os.strerror(number)}: '/run/x'" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, 75), (errno.EROFS, 3)])
def test_so_do_zarrs_errors_which_are_the_operating_system_s_in_words(number, code, capsys):
    with pytest.raises(typer.Exit) as left, exit_codes():
        raise RuntimeError(f"{os.strerror(number)} (os error {number})")
    assert left.value.exit_code == code
    assert os.strerror(number) in capsys.readouterr().err


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_command_says_how_it_goes_on(number, capsys):
    with pytest.raises(typer.Exit), exit_codes("--resume goes on"):
        raise OSError(number, os.strerror(number))
    said = capsys.readouterr().err
    assert said.endswith("; --resume goes on\n")
    assert "the same command" not in said


@pytest.mark.parametrize(
    ("fails", "words"),
    [
        ("comir_batch.pipeline.conversion.write", "transform convert {}/t.json {}/o.json --to json"),
        ("comir_batch.pipeline.merging.merge", "merge {} --out {}/o.ome.tif"),
        ("comir_batch.core.point_fit.fit_points", "transform fit {}/p.csv {}/p.csv {}/o.json"),
    ],
    ids=["convert", "merge", "fit"],
)
def test_commands_that_do_not_resume_do_not_say_so(fails, words, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_json(Composite(), tmp_path / "t.json")
    (tmp_path / "p.csv").write_text("x_um,y_um\n" + "1,2\n3,4\n" * 3)
    monkeypatch.setattr(fails, full)
    result = CliRunner().invoke(app.app, words.format(*[tmp_path] * 3).split())
    assert result.exit_code == 75
    assert result.stderr.endswith("Make room; start again\n")


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOTDIR, errno.EINVAL])
def test_other_errors_of_the_operating_system_are_faults_of_the_program(number, monkeypatch, capsys):
    def command():
        with exit_codes():
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(app, "app", command)
    with pytest.raises(SystemExit) as left:
        app.main()
    assert left.value.code == 70
    assert "Traceback" in capsys.readouterr().err


def test_a_reader_that_goes_away_ends_the_command_quietly():
    lines = "import comir_batch.cli.app as a\nfrom comir_batch.cli.failures import exit_codes\nimport typer\n"
    endless = "app = typer.Typer()\n@app.command()\ndef c():\n with exit_codes():\n  while True: print('x' * 99)\n"
    command = [sys.executable, "-c", f"{lines}{endless}a.app = app\na.main()"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141


def test_a_name_that_stdout_cannot_encode_is_escaped():
    lines = "import comir_batch.cli.app as a\nimport typer\n"
    odd = "app = typer.Typer()\n@app.command()\ndef c():\n typer.echo('caf' + chr(0xdce9))\n"
    command = [sys.executable, "-c", f"{lines}{odd}a.app = app\na.main()"]
    strict = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(command, capture_output=True, check=True, env=strict)
    assert done.stdout == rb"caf\udce9" + b"\n"


def test_a_fault_of_the_program_is_70_and_not_a_verdict(monkeypatch, capsys):
    monkeypatch.setattr(app, "app", lambda: 1 / 0)
    with pytest.raises(SystemExit) as left:
        app.main()
    assert left.value.code == 70
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_other_errors_are_not_hidden():
    with pytest.raises(TaskError), exit_codes():
        raise TaskError("a bug: task errors end in rows")


def test_problems_of_a_manifest_stand_on_a_line_each(capsys):
    problems = [Problem(2, "fixed", f"cannot read {LONG}", "Check the path"), Problem(0, "-", "bad", "Mend")]
    with pytest.raises(typer.Exit) as left, exit_codes():
        raise ManifestError(problems)
    assert left.value.exit_code == 3
    title, *lines = capsys.readouterr().err.splitlines()
    assert title == "2 problems in the manifest:"
    assert lines == [str(problem) for problem in problems]


def test_a_table_in_a_pipe_is_never_wrapped(capsys):
    print_table("models", ("name", "note"), [("a", LONG), ("longer", "b")])
    assert capsys.readouterr().out.splitlines() == ["models:", "name    note", f"a       {LONG}", "longer  b"]


def test_a_table_without_rows_has_its_head(capsys):
    print_table("models", ("name", "note"), [])
    assert capsys.readouterr().out.splitlines() == ["models:", "name  note"]


def test_a_table_on_a_terminal_is_drawn_and_keeps_markup_as_text(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    print_table("pairs", ("pair_id", "reason"), [("a", "[red]not markup[/red]")])
    drawn = capsys.readouterr().out
    assert "[red]not markup[/red]" in drawn
    assert "│" in drawn


def test_lines_say_what_happens_and_are_sparing_with_tasks():
    stream = io.StringIO()
    subscriber = Lines(stream)
    for event in EVENTS:
        subscriber(event)
    lines = [line.split(" ", 1)[1] for line in stream.getvalue().splitlines()]
    assert lines == [
        "dashboard: http://127.0.0.1:9/status (from your own machine: ssh -N there)",
        "chunk-3fa2c1d0 (a, b): started",
        "chunk-3fa2c1d0 (a, b): 12 of 40 tasks done",
        "chunk-3fa2c1d0 (a, b): 23 of 40 tasks done",
        "chunk-3fa2c1d0 (a, b): 34 of 40 tasks done",
        "chunk-3fa2c1d0 (a, b): t is tried again, the worker was lost",
        "chunk-3fa2c1d0 (a, b): failed, no {braces} and [markup] harm",
        "chunk-3fa2c1d0 (a, b): skipped, rejected",
        "a: review (First; Second)",
        "b: done up to the stage that was asked for",
    ]


def test_bars_count_tasks_and_keep_markup_as_text():
    console = Console(file=io.StringIO(), width=200)
    with Progress(console=console) as progress:
        subscriber = Bars(progress)
        for event in EVENTS:
            subscriber(event)
        (bar,) = progress.tasks
        assert (bar.description, bar.completed, bar.total) == ("chunk", 35, 40)
    printed = console.file.getvalue()
    assert "no {braces} and [markup] harm" in printed
    assert "dashboard: http://127.0.0.1:9/status" in printed
    assert "started" not in printed


def test_a_dashboard_on_this_machine_needs_no_tunnel():
    event = Event(Kind.DASHBOARD, data={"address": "http://127.0.0.1:9/status", "tunnel": ""})
    assert describe(event) == "dashboard: http://127.0.0.1:9/status"


def test_what_is_said_after_the_terminal_has_gone_goes_nowhere():
    master, terminal = os.openpty()
    os.close(master)
    code = "from comir_batch.cli.run_commands import _say_stopping as say; say(); print('on', flush=True)"
    try:
        done = subprocess.run([sys.executable, "-c", code], stdout=terminal, stderr=terminal, timeout=60, check=False)
    finally:
        os.close(terminal)
    assert done.returncode == 0
