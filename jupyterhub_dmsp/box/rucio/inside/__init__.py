"""What runs in Rucio's own environment; this directory is on its ``PYTHONPATH``.

The code here imports Rucio, what Rucio depends on, and the standard library, and nothing of ours outside itself.
"""
