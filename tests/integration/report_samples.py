"""Pages made of real images, for the report's tests: what the pipeline would hand over after a registration."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import cv2
import numpy as np

from comir_batch.core.geometry import Grid
from comir_batch.core.verdict import Verdict
from comir_batch.report.data import (
    BatchRow,
    BatchSummary,
    CandidateRow,
    Compared,
    Link,
    Maps,
    PairPage,
    Provenance,
    SlideFacts,
    StageComparison,
    StageCost,
    View,
    WorstPlace,
)

if TYPE_CHECKING:
    from pathlib import Path

NASTY = "<script>document.title='owned'</script> \"quoted\" & ünï.ndpi"
PROVENANCE = Provenance(
    version="0.1.0",
    command="comir-batch run manifest.csv --out run/",
    config_digest="3f9a27c1d04b",
    seeds={"register": 1},
    finished="2026-11-21 04:12",
    host="node-017",
    packages={"numpy": "2.4", "torch": "2.13"},
)


def fluorescence(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the DAPI and TRITC scans of one section at level 2, ``(Y, X, 3)``."""
    import openslide

    images = []
    for path in sorted((folder / "tissue_dapi_tritc_ndpi").glob("*.ndpi")):
        with openslide.OpenSlide(path) as slide:
            images.append(np.asarray(slide.read_region((0, 0), 2, slide.level_dimensions[2]).convert("RGB")))
    return images[0], images[1]


def brightfield() -> tuple[np.ndarray, np.ndarray]:
    """Return scikit-image's immunohistochemistry image, and its DAB stain as a dark one-channel image in 0..1."""
    from skimage.color import rgb2hed
    from skimage.data import immunohistochemistry

    image = immunohistochemistry()
    stain = rgb2hed(image)[..., 2]
    return image, np.clip(stain / np.percentile(stain, 99.8), 0, 1)


def pair(fixed: np.ndarray, moving: np.ndarray, photometric: str = "dark", mpp: float = 0.913) -> PairPage:
    """Return the page of an accepted pair: before, the moving image is turned; after, it is nearly right."""
    height, width = fixed.shape[:2]
    grid = Grid(width, height, mpp, mpp)
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), 25, 1.0)
    before = cv2.warpAffine(moving, turn, (width, height))
    after = cv2.warpAffine(moving, np.float32([[1, 0.004, 1.5], [-0.004, 1, -1]]), (width, height))
    return PairPage(
        pair_id="skin-01",
        verdict=Verdict.ACCEPT,
        reasons=(
            "Held-out tiles agree far better than any wrong alignment (z = 21.4).",
            "93 % of the held-out tiles got better.",
            "CoMIR and raw images agree within 3.1 µm.",
        ),
        fixed=SlideFacts("test3-DAPI-2-(387).ndpi", "dapi", 3968, 4864, 0.2282, photometric, "openslide"),
        moving=SlideFacts(NASTY, "tritc", 4200, 5100, 0.2282, "dark", "openslide"),
        metrics={
            "registered_from": "comir",
            "comir_before": 0.08,
            "comir_after": 0.43,
            "comir_z": 21.43,
            "comir_share_improved": 0.931,
            "raw_z": 9.8,
            "disagreement_um": 3.12,
            "scale_min": 0.9987,
            "scale_max": 1.0021,
            "shear": 0.0012,
            "rotation_deg": 25.03,
            "mirrored": "no",
            "folding": 0.0,
            "overlap": 0.97,
            "tre_median_um": None,
            "tre_p95_um": None,
        },
        model="dapi-tritc",
        model_choice="the one shipped model that knows both modalities",
        assumed=(
            "The pixel size of the moving slide comes from the manifest (0.2282 µm).",
            "The model learnt from one slide of each modality, so the raw images had to agree for `accept`.",
        ),
        grid=grid,
        slides=View(fixed, before, after),
        comirs=View(_comir(fixed), _comir(before), _comir(after)),
        maps=_maps(fixed, mpp),
        worst=tuple(_worst(fixed, after, grid, x, y) for x, y in ((0.3, 0.25), (0.62, 0.48), (0.45, 0.8), (0.8, 0.2))),
        costs=(
            StageCost("chunk", 4.2, 812),
            StageCost("represent", 61.0, 2310),
            StageCost("register", 214.3, 3120),
            StageCost("judge", 3.9, 900),
            StageCost("warp", 48.8, 1480, "resumed"),
            StageCost("export", 0.4, 310),
        ),
        candidates=(
            CandidateRow(25.0, mirrored=False, scores={"ncc": 0.71, "z": 21.4}, chosen=True),
            CandidateRow(24.0, mirrored=False, scores={"ncc": 0.32, "z": 14.0}),
            CandidateRow(205.0, mirrored=True, scores={"ncc": 0.11, "z": 2.2}),
        ),
        links=(
            Link("transform.h5", "transform.h5", "ITK composite, fixed to moving, µm"),
            Link("transform.json", "transform.json"),
            Link("aligned.ome.zarr", "aligned.ome.zarr"),
            Link("logs", "logs/a name with ? and #.log"),
        ),
        provenance=PROVENANCE,
        index_path="../../report.html",
    )


def crashed() -> PairPage:
    """Return the page of a pair that has no images."""
    return PairPage(
        pair_id="skin-02",
        verdict=Verdict.ERROR,
        reasons=("register: elastix stopped: too many samples map outside moving image buffer.",),
        fixed=SlideFacts(NASTY, "dapi"),
        moving=SlideFacts("b\udcff.ndpi", "tritc"),
        log_tail="\n".join(f"2026-11-21 04:12:{line:02d} register: iteration {line} <metric>" for line in range(12)),
        provenance=PROVENANCE,
    )


def batch(count: int, thumbnail: np.ndarray | None = None) -> tuple[list[BatchRow], BatchSummary]:
    """Return rows of made-up numbers; each verdict occurs."""
    random = np.random.default_rng(1)
    verdicts = (Verdict.ACCEPT,) * 12 + (Verdict.REVIEW, Verdict.REVIEW, Verdict.REJECT, Verdict.ERROR)
    rows = [_row(index, verdicts[index * 7 % 16], random, thumbnail) for index in range(count)]
    summary = BatchSummary(
        title="run-2026-11-20",
        columns=("comir_z", "comir_share_improved", "disagreement_um"),
        seconds=86_400 * 1.7,
        costs=(
            StageCost("chunk", 3300, 812),
            StageCost("represent", 72_000, 2310),
            StageCost("register", 98_000, 3120),
        ),
        comparisons=(
            StageComparison("chunk", 120, 120, Compared(2900, 3100), 3300, Compared(860, 812), 140, Compared(1e4, 4e3)),
            StageComparison(
                "register", 58, 60, Compared(7e4, 9e4), 98_000, Compared(3100, 3120), 0, Compared(30, 20), 5
            ),
        ),
        notes=("2 rows of the manifest were skipped: row 17, column moving: no such file.",),
        links=(Link("results.csv", "results.csv"), Link("run.json", "run.json", "configuration, hashes, versions")),
        provenance=PROVENANCE,
    )
    return rows, summary


def _row(index: int, verdict: Verdict, random: np.random.Generator, thumbnail: np.ndarray | None) -> BatchRow:
    name = NASTY if index == 3 else f"skin-{index:03d}"
    metrics = {
        "comir_z": float(random.normal(15, 5)),
        "comir_share_improved": float(random.uniform(0.4, 1)),
        "disagreement_um": float(random.exponential(5)),
    }
    row = BatchRow(
        name,
        verdict,
        ("Held-out tiles agree far better than any wrong alignment.",),
        f"pairs/{name}/report.html",
        metrics,
        float(random.exponential(300)),
        int(random.integers(900, 3200)),
        thumbnail,
        "dapi → tritc",
        "dapi-tritc",
    )
    if verdict is Verdict.ACCEPT:
        return row
    reasons = {
        Verdict.REVIEW: ("CoMIR and raw images disagree by 41 µm.", "61 % of the held-out tiles got better."),
        Verdict.REJECT: (
            "The affine part scales by 1.9, more than 1.5.",
            "2.1 % of the tissue is folded.",
            "z is 1.2.",
        ),
        Verdict.ERROR: ("register: elastix stopped after 1800 s, its time limit; raise register.time_limit_s.",),
    }[verdict]
    if verdict is Verdict.ERROR:
        return dataclasses.replace(row, reasons=reasons, metrics={}, seconds=0.0, peak_mb=0, thumbnail=None)
    return dataclasses.replace(row, reasons=reasons)


def _comir(image: np.ndarray) -> np.ndarray:
    grey = cv2.GaussianBlur(image, (0, 0), 3)
    grey = grey.mean(axis=2) / 255 if grey.ndim == 3 else grey
    return np.clip(grey / max(float(np.percentile(grey, 99.8)), 1e-6), 0, 1)


def _maps(fixed: np.ndarray, mpp: float) -> Maps:
    height, width = fixed.shape[:2]
    y, x = np.mgrid[0:1:128j, 0:1:104j]
    bend = 14 * np.exp(-((x - 0.6) ** 2 + (y - 0.5) ** 2) / 0.05) + 2 * np.sin(9 * x) ** 2
    turned = np.hypot(x - 0.5, (y - 0.5) * height / width) * 2 * np.sin(np.radians(12.5)) * width * mpp
    tissue = cv2.resize(_comir(fixed), (26, 32), interpolation=cv2.INTER_AREA) > 0.15
    held_out = tissue & (np.random.default_rng(2).random(tissue.shape) < 0.4)
    before = np.where(held_out, np.random.default_rng(3).normal(0.08, 0.08, tissue.shape), np.nan)
    gain = np.random.default_rng(4).normal(0.35, 0.2, tissue.shape)
    jacobian = 1 + 0.25 * np.sin(7 * x) * np.cos(6 * y)
    jacobian[60:64, 40:44] = -0.1
    return Maps(turned + bend, bend, jacobian, "", before, before + gain, "normalised correlation of the CoMIRs")


def _worst(fixed: np.ndarray, after: np.ndarray, grid: Grid, x: float, y: float) -> WorstPlace:
    side = min(160, min(fixed.shape[:2]) // 4)
    column, row = int(x * (grid.width - side)), int(y * (grid.height - side))
    box = np.s_[row : row + side, column : column + side]
    ((x_um, y_um),) = grid.to_um([[column + side / 2, row + side / 2]])
    return WorstPlace(float(x_um), float(y_um), 0.11 + x / 5, fixed[box], after[box], side * grid.mpp_x)
