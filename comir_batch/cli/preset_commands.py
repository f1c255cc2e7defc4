"""`presets`: the parameter maps that elastix gets."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  typer resolves the annotations
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from comir_batch.cli import options  # noqa: TC001  typer resolves the annotations
from comir_batch.cli.failures import exit_codes
from comir_batch.cli.settings import overrides

if TYPE_CHECKING:
    from comir_batch.core.config import RegisterConfig
    from comir_batch.registration.elastix_maps import ParameterMap

app = typer.Typer(
    name="presets",
    help="elastix' parameters of the full fit, a map a stage. A run fits rigid and affine on coarse images first, and "
    "goes on with the one that explains more; with files of yours it takes these, in order. Write them to files, "
    "change those, and give them back: "
    'comir-batch run ... --set \'register.parameter_files=["1-rigid.txt", "3-bspline.txt"]\'.',
    short_help="elastix' parameters of the full fit.",
    no_args_is_help=True,
)
View = Annotated[
    Literal["comir", "raw"],
    typer.Option(help="Fit of the representations, or of the raw images."),
]
Side = Annotated[
    int,
    typer.Option(
        min=1, metavar="PIXELS", help="Side of the registered image, taken for square; the shorter one of others."
    ),
]
Mpp = Annotated[float, typer.Option(min=1e-6, metavar="UM", help="Its pixel size, which control points depend on.")]


@app.command()
def show(*, view: View = "comir", side: Side = 2048, mpp: Mpp = 1.0, settings: options.Settings = None) -> None:
    """Print the maps as elastix reads them."""
    with exit_codes():
        from comir_batch.registration.elastix_maps import render

        for name, stage in _preset(view, side, mpp, _config(settings)).items():
            typer.echo(f"// {name}\n{render(stage)}")


@app.command()
def write(
    folder: Annotated[Path, typer.Argument(help="Takes a file for each stage; none is written over.")],
    *,
    view: View = "comir",
    side: Side = 2048,
    mpp: Mpp = 1.0,
    settings: options.Settings = None,
) -> None:
    """Write a parameter file for each stage."""
    with exit_codes():
        from comir_batch.core.errors import UserError
        from comir_batch.registration.elastix_maps import render

        config = _config(settings)
        if config.second_metric != "none":
            raise UserError(
                "files cannot hold what register.second_metric compares besides, so they could not be given back. "
                "Leave it out here, or keep to the presets"
            )
        stages = _preset(view, side, mpp, config)
        paths = [folder / f"{number}-{name}.txt" for number, name in enumerate(stages, start=1)]
        there = [path for path in paths if path.exists()]
        if there:
            raise UserError(f"{there[0]} is there already. Choose another folder")
        folder.mkdir(parents=True, exist_ok=True)
        for path, stage in zip(paths, stages.values(), strict=True):
            path.write_text(render(stage), encoding="utf-8")
            typer.echo(path)


def _config(settings: list[str] | None) -> RegisterConfig:
    from comir_batch.core.config_file import load_config

    return load_config(None, overrides({}, settings)).register_


def _preset(view: str, side: int, mpp: float, config: RegisterConfig) -> dict[str, ParameterMap]:
    from comir_batch.core.geometry import Grid
    from comir_batch.registration.parameters import preset

    metric: Literal["ncc", "mi"] = "ncc" if view == "comir" else "mi"
    return preset(metric, config, Grid(side, side, mpp, mpp), config.second_metric)
