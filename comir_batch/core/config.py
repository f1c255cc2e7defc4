"""The settings of a run: defaults < TOML file < command line; frozen, and every unknown key is an error.

Each stage has a section of its own, because a stage's fingerprint contains its section and nothing else.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from comir_batch.core.errors import ConfigError

_Sharded = TypeVar("_Sharded", "ChunkConfig", "WarpConfig")


class Section(BaseModel):
    """Base of all sections: frozen, and strict about its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _check_shard(section: _Sharded) -> _Sharded:
    if section.shard % section.chunk:
        raise ValueError(f"shard {section.shard} must be a multiple of chunk {section.chunk}")
    return section


class ChunkConfig(Section):
    """The working level of a slide, rewritten as sharded Zarr.

    Attributes
    ----------
    mpp : float
        Pixel size in µm to work at where no model gives one.
    max_side : int
        A slide without a model is worked on at most at this many pixels a side, so that huge slides stay cheap.
    shard, chunk : int
        Sides of shards and of the chunks in them, in pixels.
    """

    mpp: float = Field(default=1.0, gt=0)
    max_side: int = Field(default=8192, ge=256)
    shard: int = Field(default=1024, ge=64)
    chunk: int = Field(default=256, ge=16)

    @model_validator(mode="after")
    def _whole_chunks(self) -> ChunkConfig:
        return _check_shard(self)


class RepresentConfig(Section):
    """Computing CoMIRs.

    Attributes
    ----------
    dtype : {"float32", "float16"}
        Type that representations are stored in.
    precision : {"float32", "bfloat16"}
        Arithmetic of the network.
    """

    dtype: Literal["float32", "float16"] = "float16"
    precision: Literal["float32", "bfloat16"] = "float32"


class RegisterConfig(Section):
    """Global search and elastix.

    Attributes
    ----------
    seed : int
        Of the samplers and of the choice of held-out tiles.
    threads : int
        Of the search and of elastix; elastix' results depend on it, so it is fixed rather than taken from the machine.
    starts : {"search", "features", "both"}
        What finds the starts: the global search; SIFT features that agree beyond chance, which takes a second and finds
        mirrored tissue and any of the sizes between the `scales`, but only where both images have the same detail; or
        both.
    outlines : bool
        Whether starts heed where tissue ends and glass begins, besides; only where both tissues end within their
        images, and no mask of the manifest says what counts.
    search_side : int
        Longer side, in pixels, of the images that the global search sees.
    angles : int
        Rotations that the search tries over the full turn, for each mirroring.
    scales : tuple of float
        How many times as large as the pixel sizes say the moving tissue may be: the search tries each, and where
        there are several, starts settle between them.
    min_overlap : float
        Smallest share of the smaller tissue that must overlap.
    candidates : int
        Places of the search that are looked at more closely, by all views together; by each of two, half as many
        besides.
    held_out : float
        Share of tiles that neither search nor fit sees, for the verdict.
    trust_z : float
        Significance on held-out tiles from which the representations are fitted alone, however significant the raw
        images are; below it raw images are fitted, too, and stay if they are surer by far.
    max_memory_gb : float
        What registration may use; images are reduced until about 110 bytes a pixel + 1.1 GB fit.
    grid_um : float
        Final B-spline control point spacing; at least sixteen pixels of the registered images.
    bending_weight : float
        Weight of the B-spline's bending energy beside the similarity; more of it is stiffer and folds less.
    iterations : int
        Of each resolution of the B-spline; rigid and affine take half as many.
    samples : int
        Of each iteration on representations; mutual information, which is noisier, takes four times as many. A B-spline
        with more than 256 control points takes so many for every 256, up to 131072.
    block_side, block_reach : int
        Of block refinement, in pixels of the working level: side of the blocks, and how far from where the fit lays it
        a block is looked for.
    time_limit_s : float
        For one elastix call; the child is killed after it.
    second_metric : {"none", "raw", "landmarks"}
        What the full fit of representations also makes alike: the raw images, by mutual information; or what the full
        fit of either view brings together, besides: the landmarks of the manifest. Not with `parameter_files`.
    second_weight : float
        Of the mutual information beside the correlation, or of the landmarks' mean distance in control point spacings.
    parameter_files : tuple of str
        Paths of elastix parameter files, one a stage in their order, for the full fit instead of the presets (see
        `comir-batch presets`). They are read once: what is kept is their text.
    """

    seed: int = Field(default=1, ge=0)
    threads: int = Field(default=2, ge=1)
    starts: Literal["search", "features", "both"] = "search"
    outlines: bool = True
    search_side: int = Field(default=256, ge=64, le=1024)
    angles: int = Field(default=120, ge=8)
    scales: tuple[Annotated[float, Field(ge=0.1, le=10)], ...] = Field(default=(1.0,), min_length=1)
    min_overlap: float = Field(default=0.4, gt=0, lt=1)
    candidates: int = Field(default=12, ge=1)
    held_out: float = Field(default=0.2, gt=0, lt=0.5)
    trust_z: float = Field(default=4.0)
    max_memory_gb: float = Field(default=4.0, ge=1.5)
    grid_um: float = Field(default=64.0, gt=0)
    bending_weight: float = Field(default=50.0, ge=0)
    iterations: int = Field(default=250, ge=10)
    samples: int = Field(default=2048, ge=256)
    block_side: int = Field(default=64, ge=32, le=512)
    block_reach: int = Field(default=24, ge=4, le=256)
    time_limit_s: float = Field(default=1800.0, gt=0)
    second_metric: Literal["none", "raw", "landmarks"] = "none"
    second_weight: float = Field(default=1.0, gt=0)
    parameter_files: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_objective(self) -> Self:
        if self.parameter_files and self.second_metric != "none":
            raise ValueError("second_metric is for the presets; leave it out, or parameter_files")
        return self

    @field_validator("parameter_files")
    @classmethod
    def _read(cls, files: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(file if "\n" in file else _text_of(Path(file)) for file in files)


def _text_of(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    return text + "\n"  # which tells a text from a path


class JudgeConfig(Section):
    """Thresholds of the verdict.

    Attributes
    ----------
    max_scale, max_shear : float
        Largest credible scale change (as a factor) and shear of the affine part.
    max_folding : float
        Largest credible share of tissue where the Jacobian is not positive.
    max_area_change : float
        Largest local change of area over 98 % of the tissue, as a factor either way, for `accept`.
    min_overlap : float
        Smallest credible share of the smaller tissue that lies on the other slide's tissue.
    min_tiles : int
        Fewest held-out tiles that suffice for `accept`.
    min_blocks : float
        Smallest share of the blocks that must be of use for `accept`, where a pair is refined by blocks.
    min_gain : float
        Smallest share of held-out tiles that must look better after than before for `accept`; a pair that was aligned
        from the start need only look as good.
    accept_z, review_z : float
        Significance of the held-out similarity against wrong alignments: what the view that gave the transform must
        reach for `accept`, and what any view must reach lest the pair be rejected.
    min_margin_nats : float
        Nats (natural logarithms of a likelihood ratio) by which the start must be likelier than any other one that the
        search found, for `accept`.
    max_tile_error_px : float
        Largest median distance for `accept`, in pixels of the registered images, of held-out tiles from where they fit
        best.
    max_inverse_error_px : float
        Largest median distance for `accept`, in pixels of the registered images, that fits to the moving slide and back
        take tissue from where it was.
    max_disagreement_um : float
        Largest median distance for `accept`, between what CoMIR and raw images found and between landmarks.
    """

    max_scale: float = Field(default=1.5, gt=1)
    max_shear: float = Field(default=0.2, gt=0)
    max_folding: float = Field(default=0.001, ge=0)
    max_area_change: float = Field(default=5.0, gt=1)
    min_overlap: float = Field(default=0.3, ge=0, lt=1)
    min_tiles: int = Field(default=8, ge=1)
    min_blocks: float = Field(default=0.2, ge=0, le=1)
    min_gain: float = Field(default=0.6, gt=0, le=1)
    accept_z: float = Field(default=8.0, gt=0)
    review_z: float = Field(default=4.0, gt=0)
    min_margin_nats: float = Field(default=10.0, ge=0)
    max_tile_error_px: float = Field(default=5.0, gt=0)
    max_inverse_error_px: float = Field(default=2.0, gt=0)
    max_disagreement_um: float = Field(default=20.0, gt=0)


class WarpConfig(Section):
    """Resampling the moving slide on the fixed slide's grid.

    Attributes
    ----------
    interpolation : {"nearest", "linear", "cubic"}
        Of the moving slide's pixels.
    mpp : float
        Pixel size of the aligned images in µm; 0 for the fixed slide's own, which a smaller one stands for, too.
    shard, chunk : int
        Sides of the output's shards and chunks, in pixels.
    max_lattice_error_px : float
        Largest error, in moving pixels, that the coarse coordinate lattice may make.
    """

    interpolation: Literal["nearest", "linear", "cubic"] = "linear"
    mpp: float = Field(default=0.0, ge=0, lt=1000)
    shard: int = Field(default=2048, ge=64)
    chunk: int = Field(default=512, ge=16)
    max_lattice_error_px: float = Field(default=0.02, gt=0)

    @model_validator(mode="after")
    def _whole_chunks(self) -> WarpConfig:
        return _check_shard(self)


class ExportConfig(Section):
    """What is published for a pair.

    Attributes
    ----------
    images : bool
        Write aligned images; without them a pair's results are its transforms, its verdict and its report.
    ome_zarr : bool
        Keep aligned.ome.zarr; without it there is the OME-TIFF alone, which is streamed from it.
    ome_tiff : bool
        Write aligned.ome.tif.
    tiff_compression : {"deflate", "jpeg", "zstd", "none"}
        Codec of the OME-TIFF; jpeg is lossy and for 8-bit images.
    warp_rejected : bool
        Write aligned images of rejected pairs too.
    dialects : tuple of {"mha", "napari", "napari-px", "ngff", "qupath", "warpy"}
        In which the transform is written beside JSON, ITK's and elastix' own. The usual ones are small, and are what
        goes wrong by hand: directions, orders of axes and centres of pixels. Fields may have tens of megabytes.
    """

    images: bool = True
    ome_zarr: bool = True
    ome_tiff: bool = False
    tiff_compression: Literal["deflate", "jpeg", "zstd", "none"] = "deflate"
    warp_rejected: bool = False
    dialects: tuple[Literal["mha", "napari", "napari-px", "ngff", "qupath", "warpy"], ...] = (
        "napari",
        "qupath",
        "warpy",
    )

    @model_validator(mode="after")
    def _images_are_of_a_kind(self) -> ExportConfig:
        if self.ome_tiff and not self.images:
            raise ValueError("export.ome_tiff is an aligned image, and export.images is false; leave one of them out")
        if self.images and not (self.ome_zarr or self.ome_tiff):
            raise ValueError(
                "without export.ome_zarr and export.ome_tiff there are no aligned images; set one of them, or "
                "export.images to false"
            )
        return self


class ExecutionConfig(Section):
    """Where the work is done; never part of a fingerprint, except for `device`.

    Attributes
    ----------
    executor : {"local", "serial", "slurm", "attach"}
        A Dask cluster on this machine, this process, jobs of SLURM, or a Dask cluster that is there already.
    profile : str
        Site profile of `slurm` (and of `attach`, for where networks run): a name or the path of a TOML file.
    scheduler_file : str
        Where the scheduler to attach to has written its address.
    workers : int
        Worker processes; 0 means one for each core, but not more than one for each 5 GiB of memory, of the machine or
        of the SLURM job that this is.
    memory_gb : float
        Memory of a worker in GB; 0 means an equal share of what there is.
    device : {"auto", "cpu", "cuda"}
        Where networks run; `auto` takes CUDA if there is a device.
    dashboard : str
        Address of the Dask dashboard; empty for none.
    queue_timeout_s : float
        How long, in seconds, to wait for workers while nothing else runs; 0 for as long as it takes.
    drain_s : float
        How long running tasks may take to end when the driver's own walltime is near (SIGUSR1).
    retries : int
        How often a task whose worker was lost is tried again.
    """

    executor: Literal["local", "serial", "slurm", "attach"] = "local"
    profile: str = ""
    scheduler_file: str = ""
    workers: int = Field(default=0, ge=0)
    memory_gb: float = Field(default=0.0, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dashboard: str = "127.0.0.1:0"
    queue_timeout_s: float = Field(default=0.0, ge=0)
    drain_s: float = Field(default=120.0, ge=0)
    retries: int = Field(default=2, ge=0)


class RunConfig(Section):
    """All settings of a run, a section for each stage.

    Attributes
    ----------
    model : str
        For the rows that name none; empty to let the modalities decide.
    pairs_in_flight : int
        How many pairs are worked on at once; 0 follows the number of workers.
    """

    model: str = ""
    pairs_in_flight: int = Field(default=0, ge=0)
    chunk: ChunkConfig = ChunkConfig()
    represent: RepresentConfig = RepresentConfig()
    register_: RegisterConfig = Field(default=RegisterConfig(), alias="register")
    judge: JudgeConfig = JudgeConfig()
    warp: WarpConfig = WarpConfig()
    export: ExportConfig = ExportConfig()
    execution: ExecutionConfig = ExecutionConfig()


def load_config(path: Path | None, overrides: dict[str, Any] | None = None) -> RunConfig:
    """Read a TOML file and lay overrides (nested dicts of the same shape) over it.

    Paths are made absolute, for a later command may be given elsewhere: those in the file are relative to its folder,
    those of overrides to the working directory. A model or a profile is a path if it has a slash (a profile, too, if
    it ends in .toml), else a name.

    Raises
    ------
    ConfigError
        If the file is missing or not TOML, or a key or value is wrong; the message names each.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"cannot read the config file {path}: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not valid TOML: {error}") from error
    try:
        values = anchored(values, Path() if path is None else path.parent)
        return RunConfig.model_validate(merged(values, anchored(overrides or {}, Path())))
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']} (got {e['input']!r})" for e in error.errors()]
        raise ConfigError("wrong settings: " + "; ".join(lines)) from error


def anchored(values: dict[str, Any], base: Path) -> dict[str, Any]:
    """Return nested settings whose paths are absolute; what is of a wrong type is left to the check."""

    def absolute(text: Any, *, is_path: bool = True) -> Any:
        return str((base / Path(text).expanduser()).absolute()) if text and is_path else text

    result = {key: dict(value) if isinstance(value, dict) else value for key, value in values.items()}
    execution, register = (
        section if isinstance(section := result.get(name), dict) else {} for name in ("execution", "register")
    )
    for section, key in ((result, "model"), (execution, "profile"), (execution, "scheduler_file")):
        if isinstance(text := section.get(key), str):
            section[key] = absolute(text, is_path=key == "scheduler_file" or "/" in text or text.endswith(".toml"))
    if isinstance(files := register.get("parameter_files"), list):
        register["parameter_files"] = [absolute(file, is_path="\n" not in file) for file in map(str, files)]
    return result


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Lay nested settings over others of the same shape."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result
