"""The process that holds transformix, which keeps the interpreter's lock: started by `transformix.Transformix`.

Run as ``python -m comir_batch.bench.transformix_child FOLDER``: reads ``moving.npy`` and ``place.json`` there, answers
``ready``, and for every line of stdin, the name of a transform's file, writes ``result.npy`` and answers ``done``.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def main() -> None:
    """Serve until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what transformix itself prints
    os.chdir(sys.argv[1])

    import itk  # noqa: PLC0415  only once nothing can be printed into the answers
    import numpy as np  # noqa: PLC0415

    place = json.loads(Path("place.json").read_text(encoding="utf-8"))
    moving = itk.image_from_array(np.load("moving.npy"))
    moving.SetSpacing(place["spacing"])
    moving.SetOrigin(place["origin"])
    itk.TransformixFilter, itk.ParameterObject  # noqa: B018  resolved now rather than on the clock
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        parameters = itk.ParameterObject.New()
        parameters.AddParameterFile(line.rstrip("\n"))
        found = itk.array_view_from_image(itk.transformix_filter(moving, parameters))
        if not Path(f"{line.strip()}.npy").exists():
            np.save(f"{line.strip()}.npy", found)
        print("done", file=answers, flush=True)


if __name__ == "__main__":
    main()
