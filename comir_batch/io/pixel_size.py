"""Pixel sizes in µm from the units in which files state them."""

from __future__ import annotations

_MICROMETRES = {
    "m": 1e6,
    "metre": 1e6,
    "meter": 1e6,
    "cm": 1e4,
    "centimeter": 1e4,
    "mm": 1e3,
    "millimeter": 1e3,
    "µm": 1.0,
    "μm": 1.0,
    "um": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "nm": 1e-3,
    "nanometer": 1e-3,
    "pm": 1e-6,
    "picometer": 1e-6,
    "Å": 1e-4,
    "angstrom": 1e-4,
    "in": 25400.0,
    "inch": 25400.0,
}
_COARSEST = 50.0


def micrometres(value: float, unit: str) -> float | None:
    """Return a length in µm; None if the unit is none of length (pixel, reference frame) or the value not positive."""
    factor = _MICROMETRES.get(unit.replace("\\u00B5", "µ"))
    return value * factor if factor is not None and value > 0 else None


def from_resolution(x: float, y: float, unit: str) -> tuple[float, float] | None:
    """Return the pixel size along x and y from pixels per unit.

    Printing resolutions (72, 96, 300 dpi) are what software writes when it knows nothing: everything coarser than
    50 µm a pixel is taken for one, and None comes back.
    """
    if not (x > 0 and y > 0):
        return None
    size_x, size_y = micrometres(1 / x, unit), micrometres(1 / y, unit)
    if size_x is None or size_y is None or max(size_x, size_y) >= _COARSEST:
        return None
    return size_x, size_y
