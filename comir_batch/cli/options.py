"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

Manifest: TypeAlias = Annotated[
    Path, typer.Argument(help="CSV with a pair of slides a row; relative paths are relative to it.")
]
RunDirectory: TypeAlias = Annotated[Path, typer.Argument(metavar="RUN", help="Run directory that `run` made.")]
Out: TypeAlias = Annotated[
    Path, typer.Option("--out", "-o", metavar="DIR", help="Run directory; the same one resumes a run.")
]
Config: TypeAlias = Annotated[Path | None, typer.Option(metavar="TOML", help="File with settings.")]
Model: TypeAlias = Annotated[
    str | None, typer.Option(help="Model for the rows that name none: a name, a folder, or none for the raw images.")
]
Settings: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="One setting, for example register.grid_um=32; repeatable."),
]
Executor: TypeAlias = Annotated[
    Literal["local", "serial", "slurm", "attach"] | None,
    typer.Option(
        help="Worker processes on this machine; this process alone; jobs of SLURM (--profile); or a Dask cluster that "
        "is there (--scheduler-file)."
    ),
]
Profile: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Site profile, with --executor slurm or attach: a name (see profiles list) or a file."
    ),
]
SchedulerFile: TypeAlias = Annotated[
    Path | None, typer.Option(metavar="FILE", help="File with the address of the scheduler to attach to.")
]
QueueTimeout: TypeAlias = Annotated[
    float | None,
    typer.Option(min=0, metavar="SECONDS", help="How long to wait for workers; 0 for ever."),
]
Workers: TypeAlias = Annotated[
    int | None, typer.Option(min=0, help="Worker processes on this machine; 0: one a core and 5 GiB.")
]
Device: TypeAlias = Annotated[
    Literal["auto", "cpu", "cuda"] | None, typer.Option(help="Where networks run; a --profile says itself.")
]
SkipBadRows: TypeAlias = Annotated[
    bool, typer.Option("--skip-bad-rows", help="Run the good rows where others are bad, instead of nothing.")
]
OutputMpp: TypeAlias = Annotated[
    float | None,
    typer.Option(min=0, metavar="UM", help="Pixel size of the aligned images; 0 for the fixed slide's own."),
]
NoImages: TypeAlias = Annotated[
    bool, typer.Option("--no-images", help="Write transforms, verdicts and reports alone, no aligned images.")
]
OmeTiff: TypeAlias = Annotated[bool, typer.Option("--ome-tiff", help="Write aligned.ome.tif too.")]
OnlyOmeTiff: TypeAlias = Annotated[
    bool, typer.Option("--only-ome-tiff", help="Write aligned.ome.tif and keep no aligned.ome.zarr.")
]
Compression: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="CODEC", help="Of aligned.ome.tif: deflate, zstd, none, or jpeg, which is lossy and small."),
]
WarpRejected: TypeAlias = Annotated[
    bool, typer.Option("--warp-rejected", help="Write aligned images of rejected pairs too.")
]
KeepWork: TypeAlias = Annotated[bool, typer.Option("--keep-work", help="Keep bulky intermediate results.")]
HeldOut: TypeAlias = Annotated[
    Path | None,
    typer.Option(metavar="CSV", help="Manifest of aligned pairs to measure on, which nothing learns from."),
]
KeepData: TypeAlias = Annotated[bool, typer.Option("--keep-data", help="Keep the slides as Zarr.")]
ModelName: TypeAlias = Annotated[str, typer.Argument(help="Name, or folder, of a model.")]
AlignedPairs: TypeAlias = Annotated[Path, typer.Argument(help="Manifest of aligned pairs of the model's modalities.")]
LearntRegion: TypeAlias = Annotated[
    tuple[float, float, float, float] | None,
    typer.Option(
        metavar="LEFT TOP RIGHT BOTTOM",
        help="Part of all fixed slides that the model learnt from, as shares; the rest is measured on. By default as "
        "its card says.",
    ),
]
WholeSlides: TypeAlias = Annotated[bool, typer.Option("--whole", help="Measure on whole slides, learnt from or not.")]
FixedSlide: TypeAlias = Annotated[Path, typer.Argument(help="A slide.")]
AlignedSlide: TypeAlias = Annotated[Path, typer.Argument(help="A slide whose pixels lie on the first one's.")]
Modalities: TypeAlias = Annotated[tuple[str, str], typer.Option(metavar="FIXED MOVING", help="Their modalities.")]
Measured: TypeAlias = Annotated[
    tuple[float, float, float, float],
    typer.Option(metavar="LEFT TOP RIGHT BOTTOM", help="Part to measure on, as shares of width and height."),
]
MotionAngle: TypeAlias = Annotated[float, typer.Option(help="Turn of the moving slide in degrees.")]
Bend: TypeAlias = Annotated[float, typer.Option(min=0, help="Largest displacement of the deformation in µm.")]
Repeats: TypeAlias = Annotated[int, typer.Option(min=1, help="Interleaved repeats; the median counts.")]
TrainSettings: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="One setting, for example temperature=0.2; repeatable."),
]
