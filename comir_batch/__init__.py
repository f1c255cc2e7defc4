"""Batch registration of whole-slide images across modalities with learned representations (CoMIR)."""

__version__ = "0.1.0"
