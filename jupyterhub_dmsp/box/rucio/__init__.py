"""The embedded Rucio: server, daemons with transfers of our own, and the storage below them.

The modules here run in the box and write files, make directories and say which commands to start. What runs in
Rucio's own environment is in ``inside/``, which this package never imports.
"""
