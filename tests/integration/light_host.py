"""Makes this process one of a host that can only drive: what computes is not installed, as far as it can tell.

Run as a program it is `comir-batch` on such a host.
"""

from __future__ import annotations

import sys

ABSENT = {"torch", "itk", "SimpleITK", "safetensors", "skimage", "zarrs"}
_DISTRIBUTIONS = ABSENT | {"itk-elastix", "scikit-image", "simpleitk"}


class _Without:
    """A finder of modules that does not find those that are absent; all else is as it was."""

    def __init__(self, finder):
        self._finder = finder

    def find_spec(self, name, *rest):
        return None if name.partition(".")[0] in ABSENT else self._finder.find_spec(name, *rest)

    def find_distributions(self, *context):
        found = getattr(self._finder, "find_distributions", lambda *_: ())(*context)
        return (each for each in found if each.metadata["Name"] not in _DISTRIBUTIONS)


def become_one() -> None:
    """Hide the packages from everything that is imported from now on."""
    assert not ABSENT & {name.partition(".")[0] for name in sys.modules}
    sys.meta_path[:] = [_Without(finder) for finder in sys.meta_path]


if __name__ == "__main__":
    become_one()
    from comir_batch.cli.app import main

    main()
