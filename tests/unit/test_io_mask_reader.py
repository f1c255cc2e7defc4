import numpy as np
import pytest
import tifffile
from PIL import Image

from comir_batch.core.errors import UserError
from comir_batch.io.mask_reader import read_mask

_MARKED = np.zeros((20, 30), bool)
_MARKED[5:9, 7:20] = True


@pytest.mark.parametrize(
    "pixels",
    [
        _MARKED,
        _MARKED.astype(np.uint8),
        _MARKED.astype(np.uint16) * 999,
        np.stack([_MARKED * 0, _MARKED * 255, _MARKED * 0], -1).astype(np.uint8),
        np.stack([_MARKED * 9, _MARKED * 0, _MARKED * 0, _MARKED * 0 + 255], -1).astype(np.uint8),
    ],
    ids=["bool", "uint8", "uint16", "rgb", "rgba"],
)
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_nonzero_is_true(tmp_path, pixels, suffix):
    path = tmp_path / f"m.{suffix}"
    if suffix == "tif":
        tifffile.imwrite(path, pixels)
    else:
        Image.fromarray(pixels).save(path)
    mask = read_mask(path)
    assert mask.dtype == bool
    assert (mask == _MARKED).all()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        (b"text", "the mask cannot be read"),
        (b"II*\0", "the mask cannot be read"),
        (np.zeros((5, 5), np.uint8), "the mask is empty"),
        (np.ones((3, 40, 50), np.uint16), "3 dimensions"),
        (np.ones((1, 16385), np.uint8), "too many for a mask"),
    ],
    ids=["missing", "text", "cut", "empty", "planes", "large"],
)
def test_bad_masks_are_one_line(tmp_path, content, said):
    path = tmp_path / "m.tif"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        tifffile.imwrite(path, content, photometric="minisblack")
    with pytest.raises(UserError, match=said) as caught:
        read_mask(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
