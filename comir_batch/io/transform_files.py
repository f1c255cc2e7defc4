"""Transform files: our lossless JSON, and ITK's .h5 and .tfm, which elastix, ITK, SimpleITK and 3D Slicer read.

All of them map fixed points to moving points, in µm. An ITK file does not name its unit: one from elsewhere is taken as
it is.
"""

from __future__ import annotations

import errno
import json
import os
from contextlib import contextmanager
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

import numpy as np

from comir_batch.core.errors import UserError
from comir_batch.core.transform import Affine, BSpline, Composite, from_dict
from comir_batch.io.tfm_text import require_whole_tfm
from comir_batch.io.whole import whole_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_ITK_SUFFIXES = (".h5", ".hdf5", ".tfm")
_IDENTITY = (1.0, 0.0, 0.0, 1.0)
_PROBE = 2**20


def write_json(transform: Composite, path: Path, *, maps: str = "fixed to moving") -> None:
    """Write a transform losslessly; the file appears whole, by a rename.

    Parameters
    ----------
    transform : Composite
        What it is.
    path : Path
        The file.
    maps : str
        Its direction. What maps moving points to fixed points says so, and is refused where one of ours is asked for.
    """
    write_document(transform.to_dict() | {"maps": maps}, path)


def write_document(document: dict[str, Any], path: Path) -> None:
    """Write JSON; the file appears whole, by a rename."""
    with whole_file(path) as partial:
        partial.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def read_json(path: Path) -> Composite:
    """Read what `write_json` wrote.

    Raises
    ------
    UserError
        If there is no such file or it is no transform of ours.
    """
    try:
        return from_dict(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}. Check the path") from error
    except (ValueError, AttributeError) as error:
        raise UserError(f"{path}: {error}. Give a transform.json of comir-batch, or an ITK .h5 or .tfm") from error


def write_itk(transform: Composite, path: Path) -> None:
    """Write an ITK CompositeTransform, `.h5` or `.tfm` by the suffix; the file appears whole, by a rename.

    ITK applies the transform that was added last first, so the parts are added from last to first. An identity stands
    for no parts, since a composite of none looks like a file that was cut short.

    Raises
    ------
    OSError
        If there is no room, or what was written does not read back.
    """
    sitk = simple_itk(path)
    whole = transform if transform.parts else Composite((Affine.identity(),))
    composite = sitk.CompositeTransform(2)
    for part in reversed(whole.parts):
        composite.AddTransform(_to_itk(sitk, part))
    _require_room(path, 8 * composite.GetNumberOfParameters())  # a process whose HDF5 found none crashes as it ends
    with itk_file(path) as partial:
        sitk.WriteTransform(composite, str(partial))
        if not _holds(partial, whole):  # ITK's text writer goes on where it cannot write
            raise OSError(errno.EIO, "what was written does not read back", str(path))


@contextmanager
def itk_file(path: Path) -> Iterator[Path]:
    """Give a hidden name for ITK to write to, as `whole_file` does, and find out what ITK does not tell.

    Raises
    ------
    OSError
        If writing failed, and the operating system will not write there: no room, no quota, no folder.
    """
    with whole_file(path, suffix_last=True) as partial:
        try:
            yield partial
        except (RuntimeError, OSError):
            _require_room(path)
            raise


def _require_room(path: Path, size: int = 0) -> None:
    """Write and remove a probe, so that the operating system says why a file beside it cannot be written."""
    with TemporaryFile(dir=path.parent) as probe:
        probe.write(bytes(_PROBE + size))
        probe.flush()
        os.fsync(probe.fileno())


def _holds(path: Path, transform: Composite) -> bool:
    try:
        return read_transform(path).to_dict() == transform.to_dict()
    except UserError:
        return False


def read_transform(path: Path) -> Composite:
    """Read a transform.json of ours, or an ITK file (.h5, .tfm).

    Parameters
    ----------
    path : Path
        The suffix tells the format. From ITK come 2-D translation, Euler, similarity, affine and cubic B-spline
        transforms and composites of them.

    Raises
    ------
    UserError
        If there is no such file, it cannot be read, or it holds a transform of another kind; or if it is ITK's and
        SimpleITK is not installed.
    """
    if path.suffix.lower() not in _ITK_SUFFIXES:
        return read_json(path)
    if not path.is_file():
        raise UserError(f"{path}: No such file. Check the path")
    sitk = simple_itk(path)
    remedy = "Write it again with ITK or SimpleITK"
    try:
        if path.suffix.lower() == ".tfm":
            require_whole_tfm(path)
        transform = sitk.ReadTransform(str(path))
    except ValueError as error:
        raise UserError(f"{path}: damaged or cut short: {error}. {remedy}") from error
    except RuntimeError as error:
        raise UserError(f"{path}: not an ITK transform file. {remedy}") from error
    try:
        return Composite(tuple(_parts(sitk, transform)))
    except ValueError as error:
        raise UserError(f"{path}: {error}. Convert it to 2-D affine and cubic B-spline transforms") from error


def simple_itk(path: Path) -> Any:
    """Return SimpleITK, which a host that only drives has not; its functions carry no types.

    Parameters
    ----------
    path : Path
        Of the file that it is wanted for.

    Raises
    ------
    UserError
        If it is not installed.
    """
    try:
        import SimpleITK  # noqa: PLC0415
    except ModuleNotFoundError as error:
        remedy = "Install SimpleITK, or give a transform.json of comir-batch"
        raise UserError(f"{path}: files of ITK transforms need SimpleITK, which is not installed. {remedy}") from error
    return SimpleITK


def _to_itk(sitk: Any, part: Affine | BSpline) -> Any:
    if isinstance(part, Affine):
        affine = sitk.AffineTransform(2)
        affine.SetMatrix(part.matrix.ravel().tolist())
        affine.SetTranslation(part.offset.tolist())
        return affine
    _, height, width = part.coefficients.shape
    bspline = sitk.BSplineTransform(2, 3)
    bspline.SetFixedParameters([width, height, *part.origin.tolist(), *part.spacing.tolist(), *_IDENTITY])
    bspline.SetParameters(part.coefficients.ravel().tolist())
    return bspline


def _parts(sitk: Any, transform: Any) -> Iterator[Affine | BSpline]:
    """Yield the parts in the order in which they are applied."""
    if transform.GetDimension() != 2:
        raise ValueError(f"a transform of {transform.GetDimension()} dimensions")
    kind = transform.Downcast()
    if isinstance(kind, sitk.CompositeTransform):
        for index in reversed(range(kind.GetNumberOfTransforms())):
            yield from _parts(sitk, kind.GetNthTransform(index))
    elif isinstance(kind, sitk.AffineTransform | sitk.Similarity2DTransform | sitk.Euler2DTransform):
        yield Affine.about(np.reshape(kind.GetMatrix(), (2, 2)), kind.GetCenter(), kind.GetTranslation())
    elif isinstance(kind, sitk.TranslationTransform):
        yield Affine(np.eye(2), np.array(kind.GetOffset()))
    elif isinstance(kind, sitk.BSplineTransform):
        yield _bspline(kind)
    elif kind.GetTransformEnum() != sitk.sitkIdentity:
        raise ValueError(f"a transform of type {kind.GetName()}")


def _bspline(kind: Any) -> BSpline:
    fixed = kind.GetFixedParameters()
    if kind.GetOrder() != 3 or fixed[6:10] != _IDENTITY:
        raise ValueError(f"a B-spline of order {kind.GetOrder()} on a grid with directions {fixed[6:10]}")
    coefficients = np.reshape(kind.GetParameters(), (2, int(fixed[1]), int(fixed[0])))
    return BSpline(np.array(fixed[2:4]), np.array(fixed[4:6]), coefficients)
