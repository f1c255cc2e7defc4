"""A diagnosis as sections of a page: sentences first, then curves, distributions, maps and spectra."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from comir_batch.report.article import Section, Table
from comir_batch.report.charts import Chart, Series, histogram, lines, scatter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from comir_batch.training.collapse import Spectrum
    from comir_batch.training.diagnosis import Diagnosis, Partners, Space, Spread, Stability, Success, Turning

_LEVELS = ("0-5°, 0-2.3 %", "5-10°, 2.3-4.7 %", "10-15°, 4.7-7 %", "15-20°, 7-9.3 %")
_FLOOR = 1e-9  # of the largest singular value, below which there is nothing but rounding


def sections(diagnosis: Diagnosis) -> tuple[Section, ...]:
    """Return the sections that show a diagnosis."""
    return (
        Section("What was found", diagnosis.findings),
        _of_success(diagnosis.success),
        _of_turning(diagnosis.turning),
        _of_partners(diagnosis.partners),
        *(_of_space(space) for space in diagnosis.spaces),
        *_of_stability(diagnosis.stability),
    )


def _of_success(success: Success) -> Section:
    rows = tuple((level, round(100 * share, 1)) for level, share in zip(_LEVELS, success.levels, strict=True))
    words = (
        f"{success.fields} crops of {success.side} pixels, as many at each level, were turned and shifted by known "
        "amounts and registered by the correlation of their CoMIRs, without elastix. Found means to 2 % of the side, "
        "on average over the corners."
    )
    columns = ("turn, shift as share of the side", "found (%)")
    return Section("Known rigid transforms", (words,), (Table("Registration success", columns, rows),))


def _of_turning(turnings: tuple[Turning, ...]) -> Section:
    words = (
        "Images are turned, represented, and turned back; the curve is the correlation with the representation of the "
        "upright image, within a disc: the mean over places, and a band from their 10th to their 90th percentile. 1 at "
        "every angle is perfect. Mirrored images matter where a section may lie face down."
    )
    charts = tuple(
        lines(
            title,
            [_curve(turning, turning.mirrored if mirrored else turning.turned) for turning in turnings],
            "angle (°)",
            "correlation",
            y_range=(0, 1),
        )
        for title, mirrored in (("Turned", False), ("Mirrored and turned", True))
    )
    return Section("Does the representation turn with the image?", (words,), charts=charts)


def _curve(turning: Turning, spreads: tuple[Spread, ...]) -> Series:
    mean, low, high = zip(*((spread.mean, spread.low, spread.high) for spread in spreads), strict=True)
    return Series(turning.modality, turning.angles, mean, low, high)


def _of_partners(partners: Partners) -> Section:
    words = (
        f"{partners.crops} crops of each modality; those of the second were read turned, perhaps mirrored, and their "
        "CoMIRs turned back. True pairs are of one place, wrong pairs of two."
    )
    groups = {"true pairs": partners.true, "wrong pairs": partners.wrong}
    return Section(
        "True pairs against wrong pairs",
        (words,),
        charts=(histogram("Correlation of the CoMIRs of two crops", groups, "correlation"),),
    )


def _of_space(space: Space) -> Section:
    columns = ("modality", "samples M", "dimensions d", "effective rank", "stable rank", "collapsed dimensions")
    rows = tuple(
        (name, s.samples, s.dimensions, round(s.effective_rank, 2), round(s.stable_rank, 2), s.collapsed)
        for name, s in space.spectra.items()
    )
    spectra = (
        f"Spectra are of {space.features}: singular values of the covariance over M crops. A dimension whose singular "
        "value is below one millionth of the largest has collapsed; no more than M - 1 can be used."
    )
    chart = (
        f"The map shows crops by their {space.distance} (metric scaling; stress {space.stress:.2f}, 0 is perfect). "
        "Lines join partners: short lines and a wide spread are good, two clouds or a line are not."
    )
    return Section(
        f"Space of the {space.name}",
        (spectra, chart),
        (Table("Ranks", columns, rows),),
        (spectrum_chart("Singular values", space.spectra), map_chart("Crops on a map", space)),
    )


def spectrum_chart(title: str, spectra: Mapping[str, Spectrum]) -> Chart:
    """Return the singular values of spectra, by their names, as shares of the largest."""
    series = []
    for name, spectrum in spectra.items():
        values = np.array(spectrum.relative)
        series.append(Series(name, 1 + np.arange(len(values)), np.where(values > _FLOOR, values, np.nan)))
    return lines(title, series, "rank", "share of the largest", log_y=True)


def map_chart(title: str, space: Space) -> Chart:
    """Return the crops of a space on a map, partners joined."""
    series = [Series(name, *np.array(points).T) for name, points in space.points.items()]
    return scatter(title, series, f"dimension 1 ({space.distance})", "dimension 2", links=True, equal=True)


def _of_stability(stability: tuple[Stability, ...]) -> Iterator[Section]:
    if not stability:
        return
    rows = tuple(
        (each.other, each.modality, each.correlation.mean, each.correlation.low, each.correlation.high)
        for each in stability
    )
    columns = ("other model", "modality", "mean", "10th percentile", "90th percentile")
    words = (
        "The same crops, represented by models that differ in their seed: correlation without its sign, which training "
        "does not fix."
    )
    yield Section("Stability over seeds", (words,), (Table("Correlation of CoMIRs", columns, rows),))
