"""Other programs that register slides, each a script that runs in an environment where that program is installed.

They import nothing of ours. Their one argument is a JSON file: ``fixed`` and ``moving`` (OME-TIFF), ``out`` (a folder
that is there), ``mpp`` (µm of a pixel of both slides), ``reduction`` (full-resolution pixels a side of one that is
registered), ``points`` (of the fixed slide) and ``partners`` (where these truly lie on the moving one), (N, 2) in µm, x
first, pixel centres at whole multiples of ``mpp``. They register, write the moving slide as the fixed one lies, as a
pyramidal OME-TIFF of full resolution, and ``found.json`` with their ``version``, and either ``partners``, where they
found the points on the moving slide, or ``points``, where they send the true partners on the fixed one.
"""
