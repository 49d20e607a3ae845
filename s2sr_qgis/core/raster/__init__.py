"""Grids, windows, resampling, degradation and writing of rasters, whatever the sensor."""
