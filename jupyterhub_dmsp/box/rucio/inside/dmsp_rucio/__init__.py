"""Rucio policy package, transfers and daemons of the embedded VRE.

Rucio finds it through ``[policy] package = dmsp_rucio`` and takes ``permission`` and ``schema`` from it.
"""

#: Rucio versions that this package was tested with; Rucio refuses to start with another.
SUPPORTED_VERSION = [">=41.0.0", "<42"]
