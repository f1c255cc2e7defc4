"""The stages: each module has one `Work`, which expands into tasks, and the functions that workers run for it."""
