"""Profiles: what they are, who may launch them, and how their environments are built."""
