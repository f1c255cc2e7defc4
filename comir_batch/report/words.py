"""Numbers and names as a reader wants them."""

from __future__ import annotations

import math
from typing import NamedTuple

MISSING = "\N{EN DASH}"


def number(value: float | str | None, digits: int = 4) -> str:
    """Return the significant digits of a number, all that stand before the point; text as it is; a dash for nothing."""
    if value is None or isinstance(value, str):
        return value or MISSING
    if not math.isfinite(value):
        return MISSING if math.isnan(value) else f"{'-' * (value < 0)}∞"
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}" if abs(value) >= 0.001 or value == 0 else f"{value:.1e}"


def sort_key(value: float | str | None) -> str:
    """Return what a table sorts by: all digits of a number, text as it is, nothing for what is missing."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return str(value)


def duration(seconds: float) -> str:
    """Return a time as `0.8 s`, `42 s`, `3 min 05 s` or `2 h 07 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def memory(megabytes: float) -> str:
    """Return memory in MB, from 1,000 MB on in GB; a dash where it was not measured."""
    if megabytes <= 0:
        return MISSING
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes:.0f} MB"


def size(megabytes: float) -> str:
    """Return the size of files as `memory` does, with two digits of small ones."""
    return f"{megabytes:.2g} MB" if 0 < megabytes < 10 else memory(megabytes)


def times(ratio: float | None) -> str:
    """Return a ratio with two digits; a dash for none."""
    if ratio is None:
        return MISSING
    return f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.1f}" if ratio >= 1 else f"{ratio:.2g}"


class MetricText(NamedTuple):
    """How a metric is shown: a label, its unit, and what it says in a sentence."""

    label: str
    unit: str = ""
    meaning: str = ""


_UNITS = {"um": "µm", "px": "px", "deg": "°", "mb": "MB", "s": "s"}
_VIEWS = {"comir": "CoMIR", "raw": "raw images"}
_KNOWN = {
    "z": MetricText(
        "z", "", "Held-out similarity in standard deviations above wrong alignments; the higher the surer."
    ),
    "z_before": MetricText("z before", "", "The same at the start."),
    "before": MetricText("Similarity before", "", "Mean over the held-out tiles at the start."),
    "after": MetricText("Similarity after", "", "Mean over the held-out tiles after registration; no fit used them."),
    "tiles": MetricText("Held-out tiles", "", "How many tiles with tissue were kept out of every fit."),
    "share_improved": MetricText(
        "Tiles improved", "", "Share of the held-out tiles that are more alike after than before."
    ),
    "overlap": MetricText("Overlap", "", "Share of the smaller tissue that lies on the other slide's tissue."),
    "scale_min": MetricText(
        "Scale, least", "", "Magnification of the affine part along the axis that it shrinks most."
    ),
    "scale_max": MetricText(
        "Scale, most", "", "The same along the other axis; both are 1 where the pixel sizes are right."
    ),
    "shear": MetricText("Shear", "", "Of the affine part; near 0 for a section that was not squeezed."),
    "rotation_deg": MetricText("Rotation", "°", "Of the affine part, from the fixed to the moving slide."),
    "mirrored": MetricText("Mirrored", "", "Whether one section lies face down."),
    "folding": MetricText(
        "Folding", "", "Share of the tissue where the Jacobian is not positive; 0 in a credible transform."
    ),
    "jacobian_min": MetricText("Jacobian, least", "", "Strongest local change of area on tissue; 0 or less is folded."),
    "jacobian_p1": MetricText("Jacobian, 1st percentile", "", "Local change of area that 99 % of the tissue exceeds."),
    "jacobian_p99": MetricText("Jacobian, 99th percentile", "", "Local change of area that 1 % of the tissue exceeds."),
    "jacobian_max": MetricText("Jacobian, most", "", "The same in the other direction; 1 keeps the area."),
    "tile_error_median_um": MetricText(
        "Estimated error", "µm", "Median distance of the held-out tiles from where they fit the other slide best."
    ),
    "tile_error_p95_um": MetricText("Estimated error, 95 %", "µm", "95 % of those tiles lie within this distance."),
    "tiles_located": MetricText(
        "Tiles located", "", "Held-out tiles whose best place is clear; the estimated error is theirs."
    ),
    "blocks_tried": MetricText("Blocks tried", "", "Blocks with tissue that the transform was to be refined by."),
    "blocks_used": MetricText("Blocks used", "", "Those that were found, and not left out as outliers."),
    "disagreement_um": MetricText("Disagreement", "µm", "Median distance between what CoMIRs and raw images found."),
    "start_margin_nats": MetricText(
        "Margin of the start", "nats", "By how much likelier the start was than any other one that the search found."
    ),
    "inverse_error_median_um": MetricText(
        "Inverse consistency", "µm", "Median distance of the tissue from where it was, to the moving slide and back."
    ),
    "inverse_error_p95_um": MetricText("Inverse consistency, 95 %", "µm", "95 % of the tissue is nearer than this."),
    "registered_from": MetricText("Registered from", "", "The view of the slides that gave the transform."),
    "model_slides": MetricText("Slides of the model", "", "How many slides of each modality the model learnt from."),
    "tre_before_median_um": MetricText("Landmark error at the start", "µm", "Median distance of the given landmarks."),
    "tre_median_um": MetricText("Landmark error", "µm", "Median distance of the given landmarks after registration."),
    "rtre_median": MetricText(
        "Relative landmark error", "", "Median, as a share of the moving slide's diagonal (rTRE)."
    ),
    "landmarks_improved": MetricText("Landmarks improved", "", "Share that lies nearer than at the start."),
    "tre_p95_um": MetricText("Landmark error, 95 %", "µm", "95 % of the landmarks lie within this distance."),
}


def describe(name: str) -> MetricText:
    """Return the words for a metric, also for one that a view's name leads (``raw_z``).

    An unknown one is named after itself, with the unit that its name ends in.
    """
    if name in _KNOWN:
        return _KNOWN[name]
    view, _, rest = name.partition("_")
    if view in _VIEWS and rest:
        text = describe(rest)
        return text._replace(label=f"{text.label}, {_VIEWS[view]}")
    stem, _, ending = name.rpartition("_")
    unit = _UNITS.get(ending, "") if stem else ""
    words = (stem if unit else name).replace("_", " ").strip()
    return MetricText(words[:1].upper() + words[1:], unit)


def printable(text: str) -> str:
    """Return text in which what UTF-8 cannot carry (odd file names) is backslash escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
