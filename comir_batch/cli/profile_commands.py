"""`profiles`: the sites that jobs can be sent to."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  typer resolves the annotations
from typing import Annotated

import typer

from comir_batch.cli.failures import exit_codes
from comir_batch.cli.invocation import container_image, invocation
from comir_batch.cli.tables import print_table

app = typer.Typer(
    name="profiles",
    help="Site profiles: which SLURM jobs run the workers. A profile is a TOML file, looked for by its name in the "
    "folders of $COMIR_BATCH_PROFILES, in ~/.config/comir-batch/profiles and in /etc/comir-batch/profiles.",
    short_help="The sites that jobs can be sent to.",
    no_args_is_help=True,
)
Name = Annotated[str, typer.Argument(help="Name, or path, of a profile.")]


@app.command("list")
def list_() -> None:
    """List the profiles of this machine, and what is wrong with those that cannot be used."""
    with exit_codes():
        from comir_batch.pipeline.profiles import list_profiles, profile_folders

        rows = [(found.name, str(found.path.parent), found.problem or found.description) for found in list_profiles()]
        if rows:
            print_table("profiles", ("name", "folder", "description"), rows)
        else:
            searched = ", ".join(map(str, profile_folders()))
            typer.echo(f"no profile in {searched}; begin one with `comir-batch profiles init NAME`")


@app.command()
def show(
    name: Name, *, as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of TOML.")] = False
) -> None:
    """Print every setting of a profile, defaults too."""
    with exit_codes():
        from comir_batch.core.profile import load_profile
        from comir_batch.pipeline.profiles import find_profile, to_toml

        path = find_profile(name)
        profile = load_profile(path)
        typer.echo(profile.model_dump_json(indent=2) if as_json else f"# {path}\n{to_toml(profile)}")


@app.command()
def init(
    name: Annotated[str, typer.Argument(help="Name of the new profile.")],
    *,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Where to write it; by default among your own.")
    ] = None,
) -> None:
    """Begin a profile: write a file whose comments explain every setting. Nothing is overwritten."""
    with exit_codes():
        from comir_batch.pipeline.profiles import begin_profile, profile_folders, user_folder

        folder = user_folder() if out is None else out
        path = begin_profile(name, folder)
        known = name if folder in profile_folders() else path
        typer.echo(
            f"wrote {path}\n"
            f"now edit it: image, account, the partitions of [cpu] and [gpu]; without GPUs remove [gpu]\n"
            f"then check it: {_check(str(known))}"
        )


def _check(profile: str) -> str:
    if container_image():  # where SLURM is not to be asked
        return f"{invocation()} profiles show {profile}; what `render` writes, sbatch --test-only checks, file by file"
    return f"comir-batch doctor --profile {profile}"
