# mypy: disable-error-code="import-not-found,import-untyped,no-any-return,no-untyped-def"
"""Scope ``collider``: simulated Z -> e e samples."""

from __future__ import annotations

from typing import Any

import zee

SCOPE = "collider"
GENERATOR = "dmsp-zee 1.0"


def fill(catalogue: Any) -> None:
    """Make the samples, their datasets and the container of all."""
    main = zee.Sample(run=410001, sqrt_s=13.0)
    higher = zee.Sample(run=420001, sqrt_s=13.6)
    worn = zee.Sample(run=410002, sqrt_s=13.0, stochastic=0.30, constant=0.03)
    parts = {
        "zee.mc.13TeV.r00410001": (main, [30_000, 60_000, 120_000, 240_000, 360_000, 500_000], (0, 2)),
        "zee.mc.13p6TeV.r00420001": (higher, [150_000] * 3, (1,)),
        "zee.mc.13TeV.worn-calorimeter.r00410002": (worn, [100_000], (2,)),
    }
    names = [_sample(catalogue, name, *part) for name, part in parts.items()]
    meta = {"kind": "MC", "process": "Z -> e e", "generator": GENERATOR}
    catalogue.container(SCOPE, "zee.mc", names, meta)


def _sample(catalogue: Any, name: str, sample: zee.Sample, counts: list[int], sites: tuple[int, ...]) -> str:
    meta = {
        "kind": "MC",
        "process": "Z -> e e",
        "generator": GENERATOR,
        "sqrt_s_tev": sample.sqrt_s,
        "run": sample.run,
        "mass_gev": zee.MASS,
        "resolution": f"{sample.stochastic:.0%}/sqrt(E) + {sample.constant:.0%}",
    }
    files = []
    for part, count in enumerate(counts):
        file = f"{name}.part{part:04d}.root"
        zee.write_tree(catalogue.place(SCOPE, file), zee.generate(sample, count, part))
        about = {**meta, "tree": "events", "n_events": count, "part": part}
        files.append(catalogue.add_file(SCOPE, file, about))
    return catalogue.dataset(SCOPE, name, files, {**meta, "n_events": sum(counts)}, sites)
