"""`bench`: measurements on pairs with a known truth."""

from __future__ import annotations

import sys
from pathlib import Path  # noqa: TC003  typer resolves the annotations
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from comir_batch.cli import options, retrieval_bench_commands, throughput_commands
from comir_batch.cli.failures import exit_codes
from comir_batch.cli.settings import overrides
from comir_batch.cli.tables import print_table

if TYPE_CHECKING:
    from comir_batch.bench.registration import Tables

_Conditions: TypeAlias = Annotated[
    list[str] | None, typer.Option(metavar="CONDITION", help="One condition, for example level-1; repeatable.")
]
_Methods: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        metavar="METHOD",
        help="elastix, sift, raw, comir and both, the default; none, elastix-one, elastix-comir, sift-raw, mi, "
        "mind or amd; repeatable. Results add up in --out.",
    ),
]
_Verdicts: TypeAlias = Annotated[
    bool, typer.Option("--verdicts/--no-verdicts", help="Gather what verdicts rest on: about a fit more a field.")
]

app = typer.Typer(name="bench", help="Measure on pairs with a known truth.", no_args_is_help=True)
throughput_commands.add_to(app)
retrieval_bench_commands.add_to(app)


@app.command("recovery")
def recovery(  # noqa: PLR0913  a parameter an option
    fixed: options.FixedSlide,
    moving: options.AlignedSlide,
    *,
    modalities: options.Modalities,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Emptied first.")],
    measured: options.Measured = (0.0, 0.0, 1.0, 1.0),
    angle: options.MotionAngle = 25.0,
    amplitude: options.Bend = 12.0,
    mirrored: Annotated[bool, typer.Option("--mirrored", help="Mirror it too.")] = False,
    model: options.Model = None,
    settings: options.Settings = None,
) -> None:
    """Move one slide by a known motion, run the pair from its files alone, and measure, beside plain elastix."""
    with exit_codes():
        from comir_batch.bench.known_motion import Motion
        from comir_batch.bench.recovery import AlignedPair, recover
        from comir_batch.cli.progress import show_progress
        from comir_batch.core.config_file import load_config

        config = load_config(None, overrides({"model": model}, settings))
        pair = AlignedPair(fixed, moving, modalities, measured)
        motion = Motion(angle_deg=angle, amplitude_um=amplitude, mirrored=mirrored)
        with show_progress() as subscriber:
            rows = recover(pair, motion, out, config, subscriber)
        print_table("recovery", ("method", "error", "note"), [(r.method, str(r.errors or "-"), r.note) for r in rows])


@app.command("registration")
def registration(  # noqa: PLR0913  a parameter an option
    model: options.ModelName,
    pairs: options.AlignedPairs,
    *,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Results; the same one goes on with them.")],
    region: options.LearntRegion = None,
    whole: options.WholeSlides = False,
    count: Annotated[int, typer.Option(min=1, help="Fields of each condition.")] = 100,
    side: Annotated[int, typer.Option(help="Of the fields, in pixels of the model's pixel size.")] = 256,
    only: _Conditions = None,
    methods: _Methods = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the fields.")] = 0,
    verdicts: _Verdicts = True,
    workers: Annotated[int, typer.Option(min=0, help="Worker processes; 0 for one a core and 5 GiB.")] = 1,
    settings: options.Settings = None,
) -> None:
    """Find known transforms of held-out fields again: with the model, without one, by elastix, by SIFT and by others.

    Fields that do not belong together are among them, and the verdicts on all are counted.
    """
    if region is not None and whole:
        raise typer.BadParameter("give --region or --whole, not both")
    with exit_codes():
        from comir_batch.pipeline.packages import require_computing

        require_computing()
        from comir_batch.bench.registration import BenchRequest, compare
        from comir_batch.cli.progress import watched
        from comir_batch.core.config_file import load_config
        from comir_batch.representation.store import find_model

        config = load_config(None, overrides({"register.threads": 1}, settings))
        request = BenchRequest(
            find_model(model),
            pairs,
            out,
            config.register_,
            region,
            whole,
            count,
            side,
            tuple(only or ()),
            tuple(methods or ()),
            seed,
            verdicts,
            workers,
            config.judge,
            tuple(sys.argv),
        )
        with watched() as (stop, subscriber):
            tables = compare(request, stop, subscriber)
        _print(tables, out)


def _print(tables: Tables, out: Path) -> None:
    for title, (columns, rows) in (("registration", tables.found), ("verdicts", tables.verdicts)):
        if rows:
            print_table(title, columns, rows)
    typer.echo(f"table:  {out / 'table.md'}\nreport: {out / 'report.html'}")


@app.command("registration-table")
def registration_table(
    measured: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Outputs of bench registration.")],
    *,
    only: _Conditions = None,
    methods: Annotated[list[str] | None, typer.Option(metavar="METHOD", help="One method; repeatable.")] = None,
) -> None:
    """Print one table, as Markdown, of what was found in several outputs: those of several models, say.

    Share found in percent with its 95 % interval, and the median error of those in pixels. A dagger marks what only an
    earlier revision or other settings have measured.
    """
    with exit_codes():
        from comir_batch.bench.registration_joined import joined_table
        from comir_batch.report.markdown import table

        typer.echo(table(*joined_table(measured, only or (), methods or ())))


@app.command("calibrate")
def calibrate_verdicts(
    measured: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Outputs of bench registration to choose thresholds on.")
    ],
    *,
    told: Annotated[
        list[Path],
        typer.Option(metavar="DIR", help="The same of other slides, to tell what the thresholds do there; repeatable."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Takes calibration.json and report.html.")],
    method: Annotated[str, typer.Option(help="Whose verdicts: both, comir or raw.")] = "both",
    settings: options.Settings = None,
) -> None:
    """Choose the significance that verdicts ask for on measured fields, and tell what it does on other slides."""
    with exit_codes():
        from comir_batch.bench.calibration_report import COLUMNS, CalibrationRequest, calibrate
        from comir_batch.core.config_file import load_config

        config = load_config(None, overrides({}, settings)).judge
        request = CalibrationRequest(tuple(measured), tuple(told), method, config, out, tuple(sys.argv))
        chosen, rows = calibrate(request)
        print_table("verdicts", COLUMNS, rows)
        typer.echo(f"--set judge.accept_z={chosen.accept_z:g} --set judge.review_z={chosen.review_z:g}")
        typer.echo(f"report: {out / 'report.html'}")


@app.command("landmarks")
def landmarks(
    manifest: Annotated[Path, typer.Argument(help="Pairs with landmarks of both slides.")],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The run, which is resumed, and the table.")],
    model: options.Model = None,
    settings: options.Settings = None,
) -> None:
    """Run pairs with landmarks, and say how near these come; beside elastix and SIFT on the raw images, both affine."""
    with exit_codes():
        from comir_batch.pipeline.packages import require_computing

        require_computing()
        from comir_batch.bench.landmarks import landmark_cells, measure_landmarks
        from comir_batch.cli.progress import watched
        from comir_batch.core.config_file import load_config

        config = load_config(None, overrides({"model": model}, settings))
        with watched() as (stop, subscriber):
            rows = measure_landmarks(manifest, out, config, stop, subscriber)
        columns = ("pair", "method", "landmarks", "rTRE median (%)", "90th percentile (%)", "improved (%)", "note")
        print_table("landmarks", columns, landmark_cells(rows))


@app.command("registration-cost")
def registration_cost(  # noqa: PLR0913  a parameter an option
    fixed: options.FixedSlide,
    moving: options.AlignedSlide,
    *,
    modalities: options.Modalities,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Takes a run, which is resumed.")],
    side: Annotated[list[int] | None, typer.Option(min=256, help="Of the images in pixels; may be repeated.")] = None,
    repeats: options.Repeats = 3,
    model: options.Model = None,
    settings: options.Settings = None,
) -> None:
    """Time each step of one pair's registration, and take its memory, beside elastix alone on the same arrays."""
    with exit_codes():
        from comir_batch.pipeline.packages import require_computing

        require_computing()
        from comir_batch.bench.recovery import AlignedPair
        from comir_batch.bench.registration_cost import cost_cells, measure_cost
        from comir_batch.cli.progress import watched
        from comir_batch.core.config_file import load_config

        config = load_config(None, overrides({"model": model}, settings))
        pair = AlignedPair(fixed, moving, modalities)
        with watched() as (stop, subscriber):
            costs = measure_cost(pair, side or [2048, 4096, 8192], repeats, out, config, stop, subscriber)
        columns = ("side (px)", "step", "CPU s", "wall s", "most memory (MB)", "error (µm)")
        print_table("registration-cost", columns, cost_cells(costs))


@app.command("training")
def training(
    repeats: options.Repeats = 5,
    threads: Annotated[int, typer.Option(min=1, help="Of torch.")] = 1,
) -> None:
    """Time the training step and inference beside a plain double loop and the bare network."""
    with exit_codes():
        from comir_batch.pipeline.packages import require_computing

        require_computing()
        from comir_batch.bench.training_speed import measure

        rows = [
            (row.work, f"{row.ours_s:.3f}", f"{row.other_s:.3f}", f"{row.ratio:.2f}", row.note)
            for row in measure(repeats, threads)
        ]
        print_table("training", ("work", "ours, CPU s", "other, CPU s", "other / ours", "note"), rows)
