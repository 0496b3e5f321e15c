# mypy: disable-error-code="import-not-found,import-untyped,no-any-return,no-untyped-def"
"""Scope ``dmsp``, open to everybody: a tutorial, a thousand small files, a deep container, an empty dataset."""

from __future__ import annotations

import json
from typing import Any

import km3net
import numpy as np
import zee

SCOPE = "dmsp"
LUMIBLOCKS = 1000
ORCA6 = {
    "kind": "data",
    "experiment": "KM3NeT",
    "detector": "ORCA6",
    "exposure_kton_year": 433,
    "tree": "binned_data",
    "source": km3net.SOURCE,
}

TUTORIAL = """# First steps in the data lake

This dataset holds

- `zee-tutorial.root`: 20 000 simulated Z bosons that decay to electron pairs (tree `events`, branch `m_ee` in GeV);
- `orca6-433kt-y-opendata.root`: KM3NeT/ORCA6's public sample of 433 kton-years (tree `binned_data`, weights `W`).

Attach it, then try in Python:

    import uproot
    path = next(p for p in first_steps.paths if p.endswith("zee-tutorial.root"))
    m = uproot.open(path)["events"]["m_ee"].array()
"""


def fill(catalogue: Any) -> None:
    """Make all of the scope."""
    _tutorial(catalogue)
    _histograms(catalogue)
    _dark_matter(catalogue)
    meta = {"kind": "data", "messenger": "gamma", "status": "awaiting the first run"}
    catalogue.dataset(SCOPE, "gamma.awaiting-data", [], meta, (), is_open=True)


def _tutorial(catalogue: Any) -> None:
    sample = zee.Sample(run=400001)
    zee.write_tree(catalogue.place(SCOPE, "zee-tutorial.root"), zee.generate(sample, 20_000))
    catalogue.place(SCOPE, "README.md").write_text(TUTORIAL, encoding="utf-8")
    meta = {"kind": "MC", "process": "Z -> e e", "sqrt_s_tev": sample.sqrt_s, "run": sample.run}
    files = [
        catalogue.add_file(SCOPE, "zee-tutorial.root", {**meta, "tree": "events", "n_events": 20_000}),
        catalogue.copy(
            SCOPE, km3net.opendata("v0.5.root"), {**ORCA6, "version": "v0.5"}, "orca6-433kt-y-opendata.root"
        ),
        catalogue.add_file(SCOPE, "README.md", {"kind": "text"}),
    ]
    about = {"kind": "tutorial", "title": "First steps in the data lake"}
    catalogue.dataset(SCOPE, "tutorial.first-steps", files, about, (0, 1))


def _histograms(catalogue: Any) -> None:
    """Mass histograms of a run, one file a luminosity block, each with as many events as chance gives it."""
    sample = zee.Sample(run=430001, sqrt_s=13.6)
    counts = np.random.default_rng(sample.run).poisson(400, LUMIBLOCKS)
    masses = np.split(zee.generate(sample, int(counts.sum()))["m_ee"], np.cumsum(counts)[:-1])
    meta = {"kind": "MC", "process": "Z -> e e", "sqrt_s_tev": sample.sqrt_s, "run": sample.run}
    files = []
    inside = 0
    for block, values in enumerate(masses):
        name = f"zee-lumiblock-{block:04d}.root"
        zee.write_histogram(catalogue.place(SCOPE, name), values)
        seen = int(((values >= zee.LOW) & (values <= zee.HIGH)).sum())
        inside += seen
        files.append(
            catalogue.add_file(SCOPE, name, {**meta, "lumiblock": block, "histogram": "m_ee", "n_events": seen})
        )
    about = {**meta, "histogram": "m_ee", "n_events": inside}
    catalogue.dataset(SCOPE, "zee.histograms.v1", files, about, (2,))


def _dark_matter(catalogue: Any) -> None:
    """container -> containers -> datasets -> files."""
    neutrino = [_orca6(catalogue, version) for version in ("v0.4", "v0.5")] + [_response(catalogue)]
    control = [_control(catalogue, year, site) for year, site in ((2024, 0), (2025, 1), (2026, 2))]
    top = "dark-matter.2026"
    parts = [
        catalogue.container(SCOPE, f"{top}.neutrino", neutrino, {"messenger": "neutrino"}),
        catalogue.container(
            SCOPE, f"{top}.collider", control, {"process": "Z -> e e", "role": "control sample"}
        ),
    ]
    catalogue.container(SCOPE, top, parts, {"title": "Inputs of the dark matter combination", "year": 2026})


def _orca6(catalogue: Any, version: str) -> str:
    meta = {**ORCA6, "version": version}
    name = f"neutrino.orca6.433kt-y.{version}"
    files = [catalogue.copy(SCOPE, km3net.opendata(f"{version}.root"), meta, f"{name}.root")]
    bins = km3net.opendata(f"{version}.json")
    if bins.exists():
        energies = len(json.loads(bins.read_text(encoding="utf-8")))
        files.append(catalogue.copy(SCOPE, bins, {"kind": "binning", "entries": energies}, f"{name}.bins.json"))
    return catalogue.dataset(SCOPE, name, files, meta, (0,))


def _response(catalogue: Any) -> str:
    meta = {"kind": "IRF", "experiment": "KM3NeT", "detector": "ARCA", "source": km3net.IRF_SOURCE}
    files = [
        catalogue.copy(SCOPE, path, {**meta, "response": path.stem}, f"arca-{path.name}")
        for path in km3net.point_source_irfs()
    ]
    return catalogue.dataset(SCOPE, "neutrino.response.arca", files, meta, (0, 2))


def _control(catalogue: Any, year: int, site: int) -> str:
    sample = zee.Sample(run=year * 100 + 1, sqrt_s=13.6)
    meta = {"kind": "MC", "process": "Z -> e e", "sqrt_s_tev": sample.sqrt_s, "run": sample.run, "year": year}
    files = []
    for quarter in range(1, 5):
        name = f"zee-control.{year}.q{quarter}.root"
        zee.write_tree(catalogue.place(SCOPE, name), zee.generate(sample, 5_000, quarter))
        about = {**meta, "quarter": quarter, "tree": "events", "n_events": 5_000}
        files.append(catalogue.add_file(SCOPE, name, about))
    about = {**meta, "n_events": 20_000}
    return catalogue.dataset(SCOPE, f"collider.zee-control.{year}", files, about, (site,))
