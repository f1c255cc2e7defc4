"""Registration of one pair: starts by all views together, and the full fit of the likeliest."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from comir_batch.registration.elastix_maps import write_chain
from comir_batch.registration.fit import Check, Fitter
from comir_batch.registration.images import seconded
from comir_batch.registration.starts import Starts, full_fit

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from comir_batch.core.config import RegisterConfig
    from comir_batch.core.geometry import Grid
    from comir_batch.core.transform import Composite
    from comir_batch.registration.fit import Attempt, Fitted
    from comir_batch.registration.images import Landmarks, View
    from comir_batch.registration.search import Candidate
    from comir_batch.registration.starts import Start


@dataclass(frozen=True, slots=True, eq=False)
class Registration:
    """What registration found.

    Attributes
    ----------
    transform : Composite
        Fixed µm to moving µm.
    winner : Candidate or None
        The search's start that won; None where the user gave the start.
    candidates : tuple of Start
        The likeliest starts, likeliest first.
    view : str
        The view that the full fit used.
    set_aside : bool
        Whether the other view's fit was made first, and set aside since this view's tells more.
    held_out : (Y, X) bool
        Pixels of the fixed grid that neither search nor fit saw.
    attempts : tuple of Attempt
        What the full fit took; only the last one has no error.
    other : Check
        What the other view finds from the same start, rigid and affine, if there is one.
    backward : Check
        What the same view finds from the moving image to the fixed one: moving µm to fixed µm.
    seconds : dict
        Wall time of each step.
    """

    transform: Composite
    winner: Candidate | None
    candidates: tuple[Start, ...]
    view: str
    set_aside: bool
    held_out: NDArray[np.bool_]
    attempts: tuple[Attempt, ...]
    other: Check
    backward: Check
    seconds: dict[str, float] = field(default_factory=dict)


def register(
    views: Sequence[View],
    config: RegisterConfig,
    *,
    deformable: bool,
    initial: Composite | None,
    folder: Path,
    landmarks: Landmarks | None = None,
    outline: View | None = None,
) -> Registration:
    """Register a pair.

    A search over all rotations and mirrorings proposes starts, and the likeliest by all views together wins. The full
    fit is rigid, affine and, if wanted, B-spline, on the representations where they are significant, else on the raw
    images; see `starts.full_fit`.

    Parameters
    ----------
    views : sequence of View
        One or two ways of comparing the pair, on the same two grids.
    config : RegisterConfig
        Settings.
    deformable : bool
        Whether a B-spline follows the affine transform.
    initial : Composite or None
        Fixed µm to moving µm: the one start, instead of the search.
    folder : Path
        Takes folders of elastix' files: of the full fit, with the name of its view, and of the fits to compare it with.
    landmarks : ((N, 2) array, (N, 2) array) or None
        Fixed and moving points in µm; they count where the settings say so.
    outline : View or None
        What the outlines tell, see `outline.outlines`: fits of raw images see a rim of glass then.

    Raises
    ------
    RegistrationError
        If no start could be found.
    ConfigError
        If landmarks shall count and there are none.
    """
    clock = _Clock()
    starts = Starts(views, config, outline)
    candidates = starts.found(initial)
    best = candidates[0]
    clock.lap("search")
    fitter = Fitter(config, starts.outline)

    def fit(view: View) -> Fitted:
        return fitter.full(view, best.transform, folder / view.name, deformable=deformable)

    final = full_fit(starts, best, seconded(starts.fitted, config.second_metric, landmarks), config, fit)
    if final.fitted.is_start:
        _write_alone(final.fitted.transform, final.view.fixed.grid, folder / final.view.name)
    clock.lap("fit")
    others = [fitter.check(view, best.transform, folder / "other") for view in final.others]
    clock.lap("other")
    backward = fitter.backward(final.view, best.transform, folder / "backward")
    clock.lap("backward")
    return Registration(
        transform=final.fitted.transform,
        winner=best.candidate,
        candidates=candidates,
        view=final.view.name,
        set_aside=final.set_aside,
        held_out=starts.held_out,
        attempts=final.fitted.attempts,
        other=others[0] if others else Check(),
        backward=backward,
        seconds=clock.seconds,
    )


def _write_alone(transform: Composite, grid: Grid, folder: Path) -> None:
    """Leave a transform in place of what elastix wrote of another one, but for its logs."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.txt"):
        path.unlink()
    write_chain(transform, grid, folder, "TransformParameters")


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.seconds[name], self._last = now - self._last, now
