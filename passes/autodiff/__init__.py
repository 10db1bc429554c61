"""Differentiation as graph transformation."""
