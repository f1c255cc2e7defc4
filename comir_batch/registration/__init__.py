"""Global search and elastix."""
