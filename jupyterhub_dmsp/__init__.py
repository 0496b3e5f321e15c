"""A Virtual Research Environment for dark matter science, in one distribution."""

__version__ = "0.1.0"
