"""Tells a whole `.tfm` from a cut one, which ITK does not: a transform without its lines it reads as one of zeros."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    _Transforms = list[tuple[str, dict[str, list[str]]]]

_COMPOSITE = "CompositeTransform"
_LINES = ("Parameters", "FixedParameters")
_COUNTS = {  # of the lines above
    "AffineTransform_double_2_2": (6, 2),
    "Euler2DTransform_double_2_2": (3, 2),
    "Similarity2DTransform_double_2_2": (4, 2),
    "TranslationTransform_double_2_2": (2, 0),
}


def require_whole_tfm(path: Path) -> None:
    """Look at a file before ITK does, which reads beyond its memory where numbers are missing.

    A file that ends where another transform would begin cannot be told from one of fewer transforms.

    Raises
    ------
    ValueError
        If a transform is missing, or lacks its Parameters or FixedParameters or some of them.
    """
    announced, transforms = _content(path.read_text(encoding="latin-1"))
    if announced and announced != [str(number) for number in range(len(transforms))]:
        raise ValueError(f"it announces {len(announced)} transforms and has {len(transforms)}, or not in order")
    if transforms and transforms[-1][0].startswith(_COMPOSITE):
        raise ValueError("nothing follows its composite")
    for kind, lines in transforms:
        _require_numbers(kind, lines)


def _content(text: str) -> tuple[list[str], _Transforms]:
    """Return the numbers by which transforms are announced, and each transform's kind and lines of numbers."""
    announced: list[str] = []
    transforms: _Transforms = []
    for line in text.splitlines():
        if line.startswith("#Transform"):
            announced.append(line.removeprefix("#Transform").strip())
        name, _, value = line.partition(":")
        if name.strip() == "Transform":
            transforms.append((value.strip(), {}))
        elif name.strip() in _LINES and transforms:
            transforms[-1][1][name.strip()] = value.split()
    if announced and not text.endswith("\n") and line.startswith("#"):
        announced.append("")
    return announced, transforms


def _require_numbers(kind: str, lines: dict[str, list[str]]) -> None:
    missing = [name for name in _LINES if name not in lines]
    if missing and not kind.startswith(_COMPOSITE):
        raise ValueError(f"its {kind} has no {' and no '.join(missing)}")
    found = tuple(len(lines.get(name, ())) for name in _LINES)
    wanted: tuple[float, ...] = _COUNTS.get(kind, found)
    if kind.startswith("BSplineTransform_double_2_2"):
        wanted = (2 * prod(map(float, lines["FixedParameters"][:2])), 10)
    if found != wanted:
        counts = "{:g} parameters and {:g} fixed ones"
        raise ValueError(f"its {kind} has {counts.format(*found)}, not {counts.format(*wanted)}")
