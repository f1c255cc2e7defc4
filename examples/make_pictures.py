"""Pictures of a pair for a document: both slides, both CoMIRs, and the overlay before and after registration.

    python examples/make_pictures.py RUN PAIR_ID OUT.jpg

RUN is a run directory made with --keep-work.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import cv2

from comir_batch.core.config_file import load_config
from comir_batch.pipeline.graph import build_jobs
from comir_batch.pipeline.inference import inference
from comir_batch.pipeline.layout import Layout
from comir_batch.pipeline.profiles import site_profile
from comir_batch.pipeline.run import earlier_run, inspect_request
from comir_batch.pipeline.stages.report import ReportWork, pictures_of
from comir_batch.report.figures import overlay, panel

if TYPE_CHECKING:
    from comir_batch.pipeline.pictures import Pictures

_HEIGHT = 560
# Halved colour resolution would draw fringes on overlays that look like misalignment.
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 88, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]


def main(run_directory: Path, pair_id: str, out: Path) -> None:
    """Draw the pictures of one pair and write them as one picture."""
    work = find_pair(run_directory, pair_id)
    picture = draw(pictures_of(work), work)
    out.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(out), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), JPEG)
    print(f"{out}: {picture.shape[1]} x {picture.shape[0]} pixels")


def find_pair(run_directory: Path, pair_id: str) -> ReportWork:
    """Return what the report of a pair was made from."""
    earlier = earlier_run(run_directory)
    config = load_config(None, earlier.settings)
    pairs = inspect_request(earlier.manifest, config, skip_bad_rows=True).pairs
    where = inference(config.execution, site_profile(config.execution))
    jobs = build_jobs(pairs, config, Layout(run_directory.resolve()), where)
    works = [job.work for job in jobs.values() if isinstance(job.work, ReportWork) and job.pairs == (pair_id,)]
    if not works:
        sys.exit(f"{run_directory} has no pair {pair_id}")
    return works[0]


def draw(pictures: Pictures, work: ReportWork):  # noqa: ANN201  an RGB image
    """Return a titled panel: slides, CoMIRs if there are any, overlays."""
    names = [slide.modality.upper() for slide in (work.pair.fixed, work.pair.moving)]
    slides, comirs = pictures.slides, pictures.comirs
    kinds = [side.working.info.photometric for side in work.sides]
    shown = [(slides.fixed, f"{names[0]} (fixed)"), (slides.before, f"{names[1]} (moving)")]
    if comirs is not None:
        shown += [(comirs.fixed, f"CoMIR of {names[0]}"), (comirs.before, f"CoMIR of {names[1]}")]
    for image, when in ((slides.before, "before"), (slides.after, "after")):
        shown.append((overlay(slides.fixed, image, *kinds), f"overlay {when}"))
    return panel([image for image, _ in shown], [title for _, title in shown], height=_HEIGHT, columns=len(shown) // 2)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
