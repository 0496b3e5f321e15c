"""Whether what the catalogue says is on scratch really is there: looking, and putting right.

:mod:`access` looks at owners and modes, :mod:`audit` runs the comparison with the catalogue in Rucio's environment
(``dmsp_rucio.checking``), :mod:`report` says what was found.
"""
