"""Benchmarks: ``make bench`` runs all, ``python -m benchmarks NAME …`` some. Each prints ratios with their sizes."""
