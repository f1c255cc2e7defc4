"""The only room that opens image files: slide readers, sharded Zarr, OME-Zarr, OME-TIFF, transform files."""
