"""Typer: parses, prints, exit codes; nothing else."""
