"""The page of one pair: verdict, viewer, maps, worst places and numbers in one HTML file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from comir_batch.report import figures, scales
from comir_batch.report.pages import render
from comir_batch.report.words import number

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from comir_batch.core.geometry import Grid
    from comir_batch.core.slide import Photometric
    from comir_batch.report.data import Maps, PairPage, View, WorstPlace
    from comir_batch.report.scales import Scale

PICTURE_SIDE = 1400
CROP_SIDE = 320
_MODES = (
    ("overlay", "Overlay"),
    ("side", "Side by side"),
    ("opacity", "Opacity"),
    ("curtain", "Curtain"),
    ("flicker", "Flicker"),
    ("checker", "Checkerboard"),
)
_LAYERS = {"slides": "Slides", "comirs": "CoMIRs"}
_STATES = {"before": "Before", "after": "After"}


def pair_page(page: PairPage) -> str:
    """Return the page of a pair as self-contained HTML: it fetches nothing and needs no server.

    Pictures whose longer side is over ``PICTURE_SIDE`` pixels are reduced. All text is escaped.
    """
    frames = tuple(_frames(page))
    return render(
        "pair.html.j2",
        script="pair.js",
        page=page,
        frames=frames,
        modes=_MODES,
        choices=_choices(frames),
        ratio=f"{page.grid.width / page.grid.height:.5f}" if page.grid else "1",
        width_um=f"{page.grid.size_um[0]:.6g}" if page.grid else "0",
        maps=tuple(_maps(page.maps, _under(page))),
        unmeasured=[name for name, value in page.metrics.items() if value is None],
        scores=list(dict.fromkeys(name for row in page.candidates for name in row.scores)),
        worst=[_place(place, page.grid) for place in page.worst],
    )


class _Frame(NamedTuple):
    layer: str
    role: str
    caption: str
    uri: str


def _frames(page: PairPage) -> Iterator[_Frame]:
    if page.slides is not None:
        photometrics = (page.fixed.photometric, page.moving.photometric)
        yield from _view_frames("slides", page.slides, "", page, *photometrics)
    if page.comirs is not None:
        yield from _view_frames("comirs", page.comirs, "CoMIR of ", page)


def _view_frames(layer: str, view: View, kind: str, page: PairPage, *photometrics: Photometric) -> Iterator[_Frame]:
    stretch = layer == "slides"
    yield _frame(layer, "fixed", f"{kind}fixed · {page.fixed.modality}", figures.displayed(view.fixed, stretch=stretch))
    for state, words, image in (("before", "at the start", view.before), ("after", "registered", view.after)):
        if image is None:
            continue
        picture = figures.displayed(image, stretch=stretch)
        yield _frame(layer, state, f"{kind}moving, {words} · {page.moving.modality}", picture)
        both = figures.overlay(view.fixed, image, *photometrics, stretch=stretch)
        yield _frame(layer, f"overlay-{state}", f"Overlay {state}", both)


def _frame(layer: str, role: str, caption: str, picture: NDArray[np.uint8]) -> _Frame:
    uri = figures.data_uri(figures.fit(picture, PICTURE_SIDE))
    return _Frame(layer, role, caption[:1].upper() + caption[1:], uri)


def _choices(frames: tuple[_Frame, ...]) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Return what the viewer can switch, as (key, legend, options); nothing if there is no moving image."""
    layers = {frame.layer for frame in frames}
    states = {frame.role for frame in frames} & set(_STATES)
    if not states:
        return []
    return [
        ("when", "Moving slide", [(key, label) for key, label in _STATES.items() if key in states]),
        ("layer", "Images", [(key, label) for key, label in _LAYERS.items() if key in layers]),
    ]


def _under(page: PairPage) -> NDArray[np.float32] | None:
    """Return the fixed slide with dark tissue on white, whatever its modality."""
    return None if page.slides is None else 1 - figures.signal(page.slides.fixed, page.fixed.photometric)


class _Map(NamedTuple):
    title: str
    text: str
    uri: str
    scale: Scale


def _maps(maps: Maps, under: NDArray[Any] | None) -> Iterator[_Map]:
    if maps.displacement_um is not None:
        yield _length_map("Displacement", "Length of the whole displacement", maps.displacement_um, under)
    if maps.nonrigid_um is not None:
        yield _length_map("Non-rigid part", "What bends beyond the affine part", maps.nonrigid_um, under)
    if maps.jacobian is not None:
        text = f"{_folding(maps.jacobian)} Above 1 the moving slide shrinks onto the fixed one. {maps.jacobian_note}"
        yield _map("Jacobian determinant", text, maps.jacobian, scales.determinant(maps.jacobian), under)
    yield from _block_maps(maps, under)
    yield from _tile_maps(maps, under)


def _block_maps(maps: Maps, under: NDArray[Any] | None) -> Iterator[_Map]:
    if maps.blocks_um is not None:
        yield _length_map("Refinement by blocks", "How far blocks were moved", maps.blocks_um, under)
    if maps.blocks_lost is not None:
        text = "0: used for the refinement; 1: left out, for its neighbours lie elsewhere; 2: not found."
        yield _map("Blocks, what became of them", text, maps.blocks_lost, scales.steps(2), under)


def _length_map(title: str, meaning: str, values: NDArray[np.floating], under: NDArray[Any] | None) -> _Map:
    return _map(title, f"{meaning}: {_lengths(values)}.", values, scales.magnitude(values, "µm"), under)


def _tile_maps(maps: Maps, under: NDArray[Any] | None) -> Iterator[_Map]:
    before, after = maps.tiles_before, maps.tiles_after
    given = [tiles for tiles in (before, after) if tiles is not None]
    for name, tiles in (("before", before), ("after", after)):
        if tiles is not None:
            text = f"{maps.similarity[:1].upper()}{maps.similarity[1:]}: {_summary(tiles)}."
            yield _map(f"Held-out tiles {name}", text, tiles, scales.similarity(*given), under)
    if before is not None and after is not None:
        gain = after - before
        text = f"Orange tiles got better, blue ones worse: {_better(gain, maps.cells_per_tile)}"
        yield _map("Held-out tiles, change", text, gain, scales.change(gain), under)
    if maps.tiles_error_um is not None:
        meaning = "How far held-out tiles lie from where they fit best, where that is clear"
        yield _length_map("Estimated error", meaning, maps.tiles_error_um, under)


def _map(title: str, text: str, values: NDArray[np.floating], scale: Scale, under: NDArray[Any] | None) -> _Map:
    return _Map(title, text, figures.data_uri(figures.heat_map(values, scale, under), quality=90), scale)


def _lengths(values: NDArray[np.floating]) -> str:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return "nothing measured"
    return f"median {number(float(np.median(finite)), 3)} µm, at most {number(float(finite.max()), 3)} µm"


def _summary(values: NDArray[np.floating]) -> str:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return "nothing measured"
    low, middle, high = (number(float(value), 3) for value in np.percentile(finite, (0, 50, 100)))
    return f"median {middle}, from {low} to {high}"


def _better(gain: NDArray[np.floating], cells: int) -> str:
    finite = gain[np.isfinite(gain)]
    return f"{int((finite > 0).sum()) // cells} of {finite.size // cells} tiles got better."


def _folding(jacobian: NDArray[np.floating]) -> str:
    finite = jacobian[np.isfinite(jacobian)]
    folded = float((finite <= 0).mean()) if finite.size else 0.0
    return f"{number(100 * folded, 2)} % of the map is folded (magenta)." if folded else "Nothing is folded."


def _place(place: WorstPlace, grid: Grid | None) -> dict[str, Any]:
    both = figures.overlay(place.fixed, place.after, place.fixed_photometric, place.moving_photometric)
    pictures = {"fixed": place.fixed, "after": place.after, "overlay": both}
    left, top, share = _position(place, grid) if grid else (None, None, None)
    return {
        **{name: _crop(image) for name, image in pictures.items()},
        **{name: getattr(place, name) for name in ("x_um", "y_um", "similarity", "width_um")},
        "left": left,
        "top": top,
        "share": share,
    }


def _crop(image: NDArray[Any]) -> str:
    return figures.data_uri(figures.fit(figures.displayed(image), CROP_SIDE), quality=88)


def _position(place: WorstPlace, grid: Grid) -> tuple[float, float, float]:
    """Return where a place lies in the viewer, in percent from the left and the top, and its share of the width."""
    x, y = grid.to_pixels([[place.x_um, place.y_um]])[0]
    left, top = 100 * (x + 0.5) / grid.width, 100 * (y + 0.5) / grid.height
    return round(left, 3), round(top, 3), round(place.width_um / grid.size_um[0], 5)
