"""Runs functions on resources: in process, or on a Dask cluster; knows no images."""
