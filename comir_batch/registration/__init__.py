"""Registration of one pair: a global search over rotations and mirrorings, then elastix from rigid to B-spline."""
