"""The first hour on a device that minigen was never tried on: what is looked at, for CUDA and for a Mac."""
