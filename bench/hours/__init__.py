"""The first hour on a device that minigen was never tried on: the checks for CUDA and for a Mac."""
