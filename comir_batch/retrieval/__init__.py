"""Retrieval across modalities: which slide a crop is from, and where in it."""
