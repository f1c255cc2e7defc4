"""Figures and the HTML report; draws, never judges."""
