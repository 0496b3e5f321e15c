"""Sessions on this machine. The package itself imports no Jupyter."""
