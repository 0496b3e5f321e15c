"""Scratch: where a replicated file lies below the mount, the mount's health, and the readable view of it.

Knows nothing of Rucio's HTTP.
"""
