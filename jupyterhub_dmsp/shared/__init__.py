"""Modules of the standard library alone that every part imports, those in Rucio's own environment too.

Here they are ``jupyterhub_dmsp.shared.<module>``; Rucio's environment, which has no ``jupyterhub_dmsp``, has this
directory on its ``PYTHONPATH``.
"""
