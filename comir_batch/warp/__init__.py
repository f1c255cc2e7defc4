"""Coordinate lattice, footprints, resampling, reduction."""
