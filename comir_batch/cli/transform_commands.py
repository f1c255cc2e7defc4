"""`transform`: what lies on one slide, on the other: points, annotations, images, label images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from comir_batch.cli.failures import exit_codes, require_new

if TYPE_CHECKING:
    from comir_batch.pipeline.known_slides import Known
    from comir_batch.pipeline.transforming_images import ImageRequest

app = typer.Typer(name="transform", help="Use a transform, or write it for another program.", no_args_is_help=True)

_Unit: TypeAlias = Literal["um", "px"]
_In: TypeAlias = Annotated[Path, typer.Argument(metavar="IN", help="What lies on one slide.")]
_Out: TypeAlias = Annotated[Path, typer.Argument(metavar="OUT", help="The same on the other; must not be there yet.")]
_Transform: TypeAlias = Annotated[
    Path,
    typer.Option(metavar="T", help="transform.json of comir-batch, ITK's .h5 or .tfm, or a pair's folder of a run."),
]
_FromMoving: TypeAlias = Annotated[
    bool,
    typer.Option("--inverse", help="IN lies on the moving slide, OUT on the fixed one; else the other way round."),
]
_Fixed: TypeAlias = Annotated[
    Path | None, typer.Option(metavar="SLIDE", help="The fixed slide, for its pixel size; a run's folder knows it.")
]
_FixedMpp: TypeAlias = Annotated[float | None, typer.Option(min=1e-9, metavar="UM", help="Its pixel size.")]
_Moving: TypeAlias = Annotated[Path | None, typer.Option(metavar="SLIDE", help="The moving slide, likewise.")]
_MovingMpp: TypeAlias = Annotated[float | None, typer.Option(min=1e-9, metavar="UM", help="Its pixel size.")]
_ToUnit: TypeAlias = Annotated[_Unit | None, typer.Option("--to-unit", help="Unit of OUT; by default that of IN.")]
_Strict: TypeAlias = Annotated[
    bool, typer.Option("--strict", help="Write nothing if the transform folds somewhere and has no inverse there.")
]

_Image: TypeAlias = Annotated[
    Path, typer.Argument(metavar="IN", help="Image whose first pixel's centre lies where its slide's does.")
]
_ImageOut: TypeAlias = Annotated[
    Path, typer.Argument(metavar="OUT", help="A .ome.zarr or .ome.tif; must not be there yet.")
]
_Onto: TypeAlias = Annotated[
    Path | None, typer.Option(metavar="SLIDE", help="Slide whose pixels OUT has; a run's folder knows it.")
]
_OntoMpp: TypeAlias = Annotated[
    float | None, typer.Option(min=1e-9, metavar="UM", help="Its pixel size, where its file has none.")
]
_FromFixed: TypeAlias = Annotated[
    bool, typer.Option("--inverse", help="IN lies on the fixed slide, OUT on the moving one; else the other way round.")
]
_Mpp: TypeAlias = Annotated[
    float | None, typer.Option(min=1e-9, metavar="UM", help="Pixel size of IN, where its file has none.")
]
_ReducedFrom: TypeAlias = Annotated[
    float | None,
    typer.Option(min=1e-9, metavar="UM", help="IN is a reduced copy of a slide with this pixel size, and covers it."),
]
_Series: TypeAlias = Annotated[int, typer.Option(min=0, help="Which image of a file with several.")]
_Channel: TypeAlias = Annotated[str, typer.Option(help="Name or index of the one channel to use.")]


@app.command()
def points(  # noqa: PLR0913  a parameter an option
    source: _In,
    out: _Out,
    *,
    transform: _Transform,
    inverse: _FromMoving = False,
    fixed: _Fixed = None,
    fixed_mpp: _FixedMpp = None,
    moving: _Moving = None,
    moving_mpp: _MovingMpp = None,
    to_unit: _ToUnit = None,
    strict: _Strict = False,
) -> None:
    """Bring points to the other slide: a .csv or .parquet with x_um,y_um or x_px,y_px among its columns."""
    with exit_codes("start again"):
        from comir_batch.pipeline.transforming import Request, transform_points

        require_new(out)
        known = _known(transform, (fixed, fixed_mpp), (moving, moving_mpp))
        done = transform_points(Request(source, out, known, inverse, to_unit, strict))
        typer.echo(f"{out}: {done.total} points")
        if done.lost:
            typer.echo(f"{done.lost} of them have no one place on the other slide: their cells are empty", err=True)


@app.command()
def geojson(  # noqa: PLR0913  a parameter an option
    source: _In,
    out: _Out,
    *,
    transform: _Transform,
    inverse: _FromMoving = False,
    unit: Annotated[
        _Unit, typer.Option(help="Of IN: QuPath's pixels of level 0, or um from the first pixel's centre.")
    ] = "px",
    fixed: _Fixed = None,
    fixed_mpp: _FixedMpp = None,
    moving: _Moving = None,
    moving_mpp: _MovingMpp = None,
    to_unit: _ToUnit = None,
    max_edge: Annotated[
        float | None,
        typer.Option(min=1e-3, metavar="UM", help="Points are added to longer edges, so that they bend too."),
    ] = None,
    strict: _Strict = False,
) -> None:
    """Bring annotations and cells to the other slide: a .geojson or .geojson.gz as QuPath exports them."""
    with exit_codes("start again"):
        from comir_batch.pipeline.transforming import Request, transform_geojson

        require_new(out)
        known = _known(transform, (fixed, fixed_mpp), (moving, moving_mpp))
        done = transform_geojson(Request(source, out, known, inverse, to_unit, strict), unit, max_edge)
        typer.echo(f"{out}: {done.total - done.lost} features")
        if done.lost:
            typer.echo(f"{done.lost} more have no one place on the other slide and are left out", err=True)


@app.command()
def image(  # noqa: PLR0913  a parameter an option
    source: _Image,
    out: _ImageOut,
    *,
    transform: _Transform,
    onto: _Onto = None,
    onto_mpp: _OntoMpp = None,
    inverse: _FromFixed = False,
    mpp: _Mpp = None,
    reduced_from: _ReducedFrom = None,
    series: _Series = 0,
    channel: _Channel = "",
    interpolation: Annotated[Literal["nearest", "linear", "cubic"], typer.Option(help="Of IN's pixels.")] = "linear",
) -> None:
    """Warp an image of the moving slide onto the fixed slide's pixels, as .ome.zarr or .ome.tif with its pyramid."""
    with exit_codes("start again"):
        from comir_batch.core.slide import SlideSpec
        from comir_batch.pipeline.transforming_images import ImageRequest

        spec, known = SlideSpec(source.resolve(), series, channel, mpp), _filled(transform, onto, onto_mpp, inverse)
        _warp(ImageRequest(spec, out, known, inverse, reduced_from, interpolation))


@app.command()
def labels(  # noqa: PLR0913  a parameter an option
    source: _Image,
    out: _ImageOut,
    *,
    transform: _Transform,
    onto: _Onto = None,
    onto_mpp: _OntoMpp = None,
    inverse: _FromFixed = False,
    mpp: _Mpp = None,
    reduced_from: _ReducedFrom = None,
    series: _Series = 0,
    channel: _Channel = "",
) -> None:
    """Warp a label image, likewise: the same integers, and in no level a label that was not there."""
    with exit_codes("start again"):
        from comir_batch.core.slide import SlideSpec
        from comir_batch.pipeline.transforming_images import ImageRequest

        spec, known = SlideSpec(source.resolve(), series, channel, mpp), _filled(transform, onto, onto_mpp, inverse)
        _warp(ImageRequest(spec, out, known, inverse, reduced_from, labels=True))


def _known(transform: Path, fixed: tuple[Path | None, float | None], moving: tuple[Path | None, float | None]) -> Known:
    from comir_batch.pipeline.known_slides import Given, Known

    return Known.read(transform, Given(*fixed), Given(*moving))


def _filled(transform: Path, onto: Path | None, mpp: float | None, inverse: bool) -> Known:  # noqa: FBT001  in order
    """Return the transform and the slide whose pixels are filled."""
    if onto is None and mpp is not None:
        raise typer.BadParameter("--onto-mpp is the pixel size of --onto: give both")
    return _known(transform, (None, None), (onto, mpp)) if inverse else _known(transform, (onto, mpp), (None, None))


def _warp(request: ImageRequest) -> None:
    from comir_batch.pipeline.transforming_images import transform_image

    require_new(request.out)
    grid = transform_image(request)
    typer.echo(f"{request.out}: {grid.width} x {grid.height} pixels")
