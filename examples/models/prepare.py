"""Write the aligned pairs that the shipped models learn from: ``python prepare.py NAME --data FOLDER --out FOLDER``.

Then train: ``comir-batch train OUT/pairs.csv --config NAME.toml --out MODEL``. Sets that hold whole images out write
them to ``OUT/held-out.csv``; the others hold out the part of each image that their settings' ``region`` leaves out.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import tifffile
from skimage.color import rgb2hed
from skimage.data import immunohistochemistry

from comir_batch.bench.known_motion import write_pyramid
from comir_batch.core.geometry import Grid
from comir_batch.training.ihc import MPP, haematoxylin_dab_channels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    Image = NDArray[Any]

RGB = ("red", "green", "blue")
COLUMNS = ("pair_id", "fixed", "moving", "fixed_modality", "moving_modality")
MASKS = ("fixed_mask", "moving_mask")
NOMINAL_MPP = 1.0  # for images whose pixel size is not stated, or is that of a satellite


class Pairs:
    """Collects pairs of images, writes them and their manifest.

    Parameters
    ----------
    out : Path
        Folder.
    modalities : (str, str)
        Of all pairs.
    masked : bool
        Whether every pixel counts, rather than those in which tissue is found.
    """

    def __init__(self, out: Path, modalities: tuple[str, str], *, masked: bool) -> None:
        self.out, self.modalities, self.masked = out, modalities, masked
        self.rows: list[tuple[str, ...]] = []
        out.mkdir(parents=True, exist_ok=True)

    def write(self, name: str, image: Image, channels: Iterable[str], mpp: float = NOMINAL_MPP) -> str:
        """Write one ``(C, Y, X)`` image; return its file name."""
        path = self.out / f"{name}.ome.tif"
        write_pyramid(image, Grid(image.shape[2], image.shape[1], mpp, mpp), path, tuple(channels))
        cv2.imwrite(str(self.out / f"{name}-mask.png"), np.full(image.shape[1:], 255, np.uint8))
        return path.name

    def add(self, pair_id: str, fixed: str, moving: str) -> None:
        """Add a pair of files."""
        masks = [f"{Path(name).name.removesuffix('.ome.tif')}-mask.png" for name in (fixed, moving)]
        self.rows.append((pair_id, fixed, moving, *self.modalities, *(masks if self.masked else ())))

    def save(self, name: str = "pairs.csv") -> None:
        """Write the manifest of the pairs so far, and begin another."""
        with (self.out / name).open("w", newline="", encoding="utf-8") as stream:
            table = csv.writer(stream)
            table.writerow((*COLUMNS, *(MASKS if self.masked else ())))
            table.writerows(self.rows)
        self.rows = []


def dapi_tritc(data: Path, out: Path) -> None:
    """Take two scans of one section as they are."""
    folder = (data / "tissue_dapi_tritc_ndpi").resolve()
    pairs = Pairs(out, ("dapi", "tritc"), masked=False)
    pairs.add("ndpi", str(folder / "test3-DAPI-2-(387).ndpi"), str(folder / "test3-TRITC 2 (560).ndpi"))
    pairs.save()


def haematoxylin_dab(_data: Path, out: Path) -> None:
    """Write the two stains of scikit-image's picture."""
    pairs = Pairs(out, ("haematoxylin", "dab"), masked=False)
    stains = haematoxylin_dab_channels(immunohistochemistry())
    names = [pairs.write(name, stain[None], [name], MPP) for name, stain in zip(pairs.modalities, stains, strict=True)]
    pairs.add("ihc", *names)
    pairs.save()


def phase_fluorescence(data: Path, out: Path) -> None:
    """Write five phase-contrast planes, each with the same DAPI, MAP2 and NFH."""
    folder = data / "phase_fluorescence" / "condition_blue_A4"
    pairs = Pairs(out, ("phase", "fluorescence"), masked=True)
    stains = ("DAPI", "MAP2", "NFH")
    planes = [_png(folder / f"{stain}_confocal_maxproj.png") for stain in stains]
    fluorescence = pairs.write("fluorescence", np.stack(planes), stains)
    for z in (0, 3, 6, 9, 12):
        phase = pairs.write(f"phase-z{z}", _png(folder / f"phase_contrast_z{z}.png")[None], ["phase"])
        pairs.add(f"z{z}", phase, fluorescence)
    pairs.save()


def rgb_nir(data: Path, out: Path) -> None:
    """Write aerial and satellite scenes: five to learn from, three held out."""
    folder, pairs = data / "rgb_nir", Pairs(out, ("rgb", "nir"), masked=True)
    scenes = dict(_scenes(folder))
    for names, manifest in (
        (("naip-va", "naip-sw", "landsat5-para", "clouds-landsat7", "clouds-sentinel2"), "pairs.csv"),
        (("naip-se", "landsat7-olinda", "clouds-landsat5"), "held-out.csv"),
    ):
        for name in names:
            rgb = pairs.write(f"{name}-rgb", scenes[name][:3], RGB)
            pairs.add(name, rgb, pairs.write(f"{name}-nir", scenes[name][3:], ["nir"]))
        pairs.save(manifest)


def _scenes(folder: Path) -> Iterable[tuple[str, Image]]:
    """Yield scenes by name, ``(4, Y, X)``: red, green, blue, near-infrared."""
    naip = folder / "naip"
    yield "naip-va", np.stack([tifffile.imread(naip / f"NAIP-VA-b{band}.tiff") for band in (1, 2, 3, 4)])
    for name in ("sw", "se"):
        (path,) = naip.glob(f"*_{name}_*.tif")
        yield f"naip-{name}", np.moveaxis(tifffile.imread(path), -1, 0)
    bands = [tifffile.imread(folder / "landsat5" / f"LT52240631988227CUB02_B{band}.TIF") for band in (3, 2, 1, 4)]
    yield "landsat5-para", np.stack(bands)
    yield "landsat7-olinda", np.moveaxis(tifffile.imread(folder / "landsat7" / "L7_ETMs.tif"), -1, 0)[[2, 1, 0, 3]]
    for name in ("landsat5", "landsat7", "sentinel2"):
        with np.load(folder / "clouds" / f"{name}.npz") as arrays:
            reflectance = np.moveaxis(arrays["img"], -1, 0)[[2, 1, 0, 3]]
        yield f"clouds-{name}", np.rint(np.clip(reflectance, 0, 1.3) / 1.3 * 65535).astype(np.uint16)


def he_stain(data: Path, out: Path) -> None:
    """Write a newcomer's set: 16 tiles of a stained slide, 512 pixels, and a made-up label of their haematoxylin.

    The label is what a fluorescent stain might show: the amount of haematoxylin, through a curve, unevenly taken up,
    blurred, on an uneven ground with noise. Tiles of three other slides are held out.
    """
    folder = data / "histology_landmarks"
    pairs = Pairs(out, ("he", "label"), masked=False)
    others = (
        ("kidney", "rat_kidney/images_1600px/Rat_Kidney_Section02_HE.jpg"),
        ("case001", "case001_unlabelled/Case001_HE.jpg"),
        ("lung", "cima_lung_lesion1/images_1200px/29-041-Izd2-w35-He-les1.jpg"),
    )
    tiles = _tiles("cmu", data / "slides" / "aperio_svs_cmu1_small_region" / "CMU-1-Small-Region.svs", 16)
    held_out = [tile for name, path in others for tile in _tiles(name, folder / path, 2)]
    for manifest, chosen in (("pairs.csv", tiles), ("held-out.csv", held_out)):
        for name, tile in chosen:
            rgb = pairs.write(f"{name}-he", np.moveaxis(tile, -1, 0), RGB, 0.5)
            pairs.add(
                name,
                rgb,
                pairs.write(f"{name}-label", _label(tile, len(name) + sum(map(ord, name)))[None], ["label"], 0.5),
            )
        pairs.save(manifest)


def _tiles(name: str, path: Path, count: int, side: int = 512) -> list[tuple[str, Image]]:
    """Return the tiles with the most tissue of an image in colour."""
    picture = tifffile.imread(path) if path.suffix == ".svs" else cv2.imread(str(path))[..., ::-1]
    rows, columns = picture.shape[0] // side, picture.shape[1] // side
    tiles = [picture[r * side : (r + 1) * side, c * side : (c + 1) * side] for r in range(rows) for c in range(columns)]
    best = sorted(tiles, key=lambda tile: -float(tile.std()))[:count]
    return [(f"{name}-{number}", np.ascontiguousarray(tile)) for number, tile in enumerate(best)]


def _label(rgb: Image, seed: int) -> Image:
    rng = np.random.default_rng(seed)
    amount = rgb2hed(rgb)[..., 0]
    low, high = np.percentile(amount, [1, 99.5])
    amount = np.clip((amount - low) / (high - low), 0, 1) ** 1.5

    def uneven(cells: int) -> Image:
        return cv2.resize(
            rng.random((cells, cells)).astype(np.float32), amount.shape[::-1], interpolation=cv2.INTER_CUBIC
        )

    taken_up = amount * (0.5 + uneven(24))
    light = cv2.GaussianBlur(taken_up.astype(np.float32), (0, 0), 1.0) + 0.1 * uneven(4)
    counts = rng.poisson(np.clip(light, 0, None) * 400 + 10)
    return np.clip(counts * 60, 0, 65535).astype(np.uint16)


def _png(path: Path) -> Image:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise SystemExit(f"cannot read {path}")
    return image


SETS: dict[str, Callable[[Path, Path], None]] = {
    "dapi-tritc": dapi_tritc,
    "haematoxylin-dab": haematoxylin_dab,
    "he-stain": he_stain,
    "phase-fluorescence": phase_fluorescence,
    "rgb-nir": rgb_nir,
}


def main() -> None:
    """Write one set."""
    parser = argparse.ArgumentParser(description="Write the aligned pairs that a shipped model learns from.")
    parser.add_argument("name", choices=sorted(SETS))
    parser.add_argument("--data", type=Path, default=Path(), help="folder of the images (see docs/models.md)")
    parser.add_argument("--out", type=Path, required=True, help="folder that the pairs are written to")
    chosen = parser.parse_args()
    SETS[chosen.name](chosen.data, chosen.out)
    print(chosen.out / "pairs.csv")


if __name__ == "__main__":
    main()
