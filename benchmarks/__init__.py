"""Benchmarks: ``make bench`` runs all, ``python -m benchmarks NAME …`` some. Each prints ratios with their sizes."""

import sys
from pathlib import Path

# They share what the tests use to drive a box.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
