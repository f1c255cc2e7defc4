"""`bench slides`, `throughput`, `whole-job`, `dispatch`, `scaling`: large inputs, work beside others, many pairs."""

from __future__ import annotations

import sys
from pathlib import Path  # noqa: TC003  typer resolves the annotations
from typing import Annotated, Literal

import typer

from comir_batch.cli import options  # noqa: TC001  typer resolves the annotations
from comir_batch.cli.failures import exit_codes
from comir_batch.cli.settings import overrides


def add_to(app: typer.Typer) -> None:
    """Add the commands to the sub-program."""
    app.command("slides")(slides)
    app.command("throughput")(throughput)
    app.command("whole-job")(whole_job)
    app.command("dispatch")(dispatch)
    app.command("scaling")(scaling)


def slides(  # noqa: PLR0913  a parameter an option
    fixed: options.FixedSlide,
    moving: options.AlignedSlide,
    *,
    modalities: options.Modalities,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Made, or empty.")],
    side: Annotated[int, typer.Option(min=64, max=200_000, help="Of both slides, in pixels.")] = 20_000,
    kind: Annotated[Literal["ome-tiff", "ome-zarr"], typer.Option("--format", help="Of both.")] = "ome-tiff",
    compression: Annotated[
        Literal["jpeg", "deflate", "zstd", "none"], typer.Option(help="Of OME-TIFF; jpeg, quality 90, is lossy.")
    ] = "jpeg",
    angle: options.MotionAngle = 5.0,
    amplitude: options.Bend = 12.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the deformation and of the landmarks.")] = 0,
) -> None:
    """Write a large pair with a known truth: real pixels in mirrored tiles, so the layout is made up.

    Block by block; memory does not grow with the side. An OME-TIFF needs the place of its pixels, uncompressed, twice.
    """
    with exit_codes():
        from comir_batch.bench.recovery import AlignedPair
        from comir_batch.bench.slides import SlidesRequest, build_slides

        pair = AlignedPair(fixed, moving, modalities)
        request = SlidesRequest(pair, side, kind, out, compression, angle, amplitude, seed)
        manifest = build_slides(request, lambda text: typer.echo(text, err=True))
        typer.echo(f"manifest: {manifest}\ntruth:    {out / 'truth.json'}\nThe layout of these slides is made up.")


def throughput(  # noqa: PLR0913  a parameter an option
    slide: Annotated[Path, typer.Argument(help="A real slide; its pixels are laid out in mirrored tiles.")],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Takes throughput.json and throughput.md.")],
    side: Annotated[int, typer.Option(min=64, max=30_000, help="Of the square that is measured, in pixels.")] = 4096,
    repeats: options.Repeats = 5,
    threads: Annotated[int, typer.Option(min=1, help="Of everybody.")] = 1,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="ROWS", help="represent, warp, ome-zarr, ome-tiff or chunk; repeatable."),
    ] = None,
    model: Annotated[str, typer.Option(help="Whose network represents.")] = "dapi-tritc",
    modality: Annotated[str, typer.Option(help="Which of its networks; by default the first.")] = "",
    network_side: Annotated[int, typer.Option(min=64, help="Of the square that is represented, in pixels.")] = 1024,
) -> None:
    """Time representing, warping, writing and chunking beside other programs, in turn on the same pixels.

    Programs that are not installed are named in the table; pip install 'comir-batch[peers]' brings all of them.
    """
    with exit_codes():
        from comir_batch.bench.threads import limited

        with limited(threads):  # before the libraries are imported
            from comir_batch.pipeline.packages import require_computing

            require_computing()
            from comir_batch.bench.comparison import COLUMNS
            from comir_batch.bench.throughput import ThroughputRequest, measure_throughput
            from comir_batch.cli.tables import print_table

            request = ThroughputRequest(
                slide, side, out, repeats, threads, tuple(only or ()), model, modality, network_side, tuple(sys.argv)
            )
            rows = measure_throughput(request, lambda text: typer.echo(text, err=True))
            print_table("throughput", COLUMNS, [row.cells() for row in rows])
            typer.echo(f"table: {out / 'throughput.md'}")


def whole_job(  # noqa: PLR0913  a parameter an option
    fixed: options.FixedSlide,
    moving: options.AlignedSlide,
    *,
    modalities: options.Modalities,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Emptied first.")],
    model: Annotated[str, typer.Option(help="That comir-batch runs with: a name, a folder, or none.")],
    measured: options.Measured = (0.0, 0.0, 1.0, 1.0),
    angle: options.MotionAngle = 25.0,
    amplitude: options.Bend = 12.0,
    wsireg: Annotated[Path | None, typer.Option(metavar="PYTHON", help="Of an environment with wsireg 0.3.")] = None,
    valis: Annotated[Path | None, typer.Option(metavar="PYTHON", help="Of an environment with valis-wsi 1.1.")] = None,
    repeats: options.Repeats = 1,
) -> None:
    """Time a whole job, two slides in and an aligned slide out, beside other programs, and measure everybody's error.

    Everybody registers at about the model's pixel size, and takes the cores that it finds.
    """
    with exit_codes():
        from comir_batch.pipeline.packages import require_computing

        require_computing()
        from comir_batch.bench.known_motion import Motion
        from comir_batch.bench.recovery import AlignedPair
        from comir_batch.bench.whole_job import COLUMNS, WholeJobRequest, measure_whole_job
        from comir_batch.cli.tables import print_table

        peers = {name: path for name, path in (("wsireg", wsireg), ("valis", valis)) if path is not None}
        pair, motion = AlignedPair(fixed, moving, modalities, measured), Motion(angle, amplitude_um=amplitude)
        request = WholeJobRequest(pair, motion, model, out, peers, repeats, tuple(sys.argv))
        rows = measure_whole_job(request, lambda text: typer.echo(text, err=True))
        print_table("whole job", COLUMNS, [row.cells() for row in rows])
        typer.echo(f"table: {out / 'whole-job.md'}")


def dispatch(
    tasks: Annotated[int, typer.Option(min=1, help="How many.")] = 2000,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 2,
) -> None:
    """Time what a driver takes to send a task and to take in its outcome, by tasks that do nothing."""
    with exit_codes():
        from comir_batch.bench.dispatch import measure_dispatch

        taken = measure_dispatch(tasks, workers)
        typer.echo(
            f"{tasks} tasks: {taken.driver_ms:.1f} ms of the driver's CPU each, {taken.wall_ms:.1f} by the clock"
        )


def scaling(  # noqa: PLR0913  a parameter an option
    model: options.ModelName,
    *,
    gpu_rate: Annotated[
        float, typer.Option(min=1e-6, help="10^12 multiplications that a GPU does of its networks in a second.")
    ],
    side: Annotated[int, typer.Option(min=1024, help="Of both slides, in pixels.")] = 100_000,
    mpp: Annotated[float, typer.Option(min=0.01, help="µm of a pixel.")] = 0.25,
    rgb: Annotated[bool, typer.Option("--rgb", help="Three channels of 8 bits, not one.")] = False,
    tissue: Annotated[float, typer.Option(min=0.01, max=1, help="Share of the slides.")] = 0.4,
    pairs: Annotated[int, typer.Option(min=1, help="How many.")] = 10_000,
    gpus: Annotated[list[int] | None, typer.Option(min=1, help="Of the cluster; again for more.")] = None,
    cores: Annotated[int, typer.Option(min=1, help="For each GPU.")] = 16,
    gigabytes_s: Annotated[float, typer.Option(min=0.001, help="GB a second that the storage moves.")] = 5.0,
    stored: Annotated[float, typer.Option(min=0.001, max=1, help="Bytes in files for each decoded one.")] = 0.3,
    task_ms: Annotated[float, typer.Option(min=0, help="Of the driver for a task.")] = 5.0,
    output_mpp: options.OutputMpp = None,
    settings: options.Settings = None,
) -> None:
    """Reckon what very many pairs would take, and what bounds it, by the formulas of `plan`. Nothing is read."""
    with exit_codes():
        from comir_batch.bench.scaling import CLUSTER_COLUMNS, STAGE_COLUMNS, Cluster, Slides, laid_out, pair_cost
        from comir_batch.cli.tables import print_table
        from comir_batch.core.config_file import load_config
        from comir_batch.representation.store import find_model

        config = load_config(None, overrides({"warp.mpp": output_mpp}, settings))
        cost = pair_cost(find_model(model), Slides(side, mpp, rgb, tissue), config)
        cluster = Cluster(cores, gpu_rate, gigabytes_s, stored, task_ms)
        print_table("a pair", STAGE_COLUMNS, [stage.cells() for stage in cost.stages])
        typer.echo(f"networks: {cost.teramultiplications:.2f} x 10^12 multiplications a pair")
        laid = [laid_out(cost, pairs, count, cluster) for count in gpus or [8, 64]]
        print_table(f"{pairs} pairs", CLUSTER_COLUMNS, [each.cells() for each in laid])
