"""Tissue, plausibility, similarity and the verdict."""
