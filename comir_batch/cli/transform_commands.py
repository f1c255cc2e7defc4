"""`transform`: what lies on one slide, on the other: points, annotations, images, label images."""

from __future__ import annotations

import typer

app = typer.Typer(name="transform", help="Use a transform, or write it for another program.", no_args_is_help=True)
