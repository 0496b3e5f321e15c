# mypy: disable-error-code="import-not-found,import-untyped,no-any-return,type-arg"
"""Z bosons that decay to electron pairs: a small generator with a detector's resolution.

Each event is a Z with a Breit-Wigner mass, a rapidity and a transverse momentum; it decays in its rest frame with
the 1 + cos^2 of a vector boson; both electrons are boosted, smeared like a calorimeter would, and kept when they are
inside its acceptance. Energies are in GeV.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import uproot

MASS, WIDTH = 91.1876, 2.4952  # PDG
WINDOW = 30.0  # generated masses lie within MASS +- WINDOW
MIN_PT, MAX_ETA = 20.0, 2.5  # acceptance
BINS, LOW, HIGH = 60, 60.0, 120.0  # of the mass histograms


@dataclass(frozen=True)
class Sample:
    """What is generated.

    Attributes:
        run: run number, also the seed.
        sqrt_s: collision energy in TeV.
        stochastic: energy resolution at 1 GeV; it falls with the square root of the energy.
        constant: energy resolution that stays.
    """

    run: int
    sqrt_s: float = 13.0
    stochastic: float = 0.10
    constant: float = 0.01


def generate(sample: Sample, count: int, part: int = 0) -> dict[str, np.ndarray]:
    """Exactly ``count`` accepted events of one part of a sample, as the branches of a tree."""
    rng = np.random.default_rng([sample.run, part])
    found: list[dict[str, np.ndarray]] = []
    have = 0
    while have < count:
        batch = _accepted(sample, rng, max(4096, 2 * (count - have)))
        found.append(batch)
        have += len(batch["m_ee"])
    events = {name: np.concatenate([batch[name] for batch in found])[:count] for name in found[0]}
    events["run"] = np.full(count, sample.run, np.int32)
    events["event"] = np.arange(part * 10_000_000, part * 10_000_000 + count, dtype=np.int64)
    return events


def write_tree(path: Path, events: dict[str, np.ndarray]) -> None:
    """Write the tree ``events``."""
    with uproot.recreate(path, compression=uproot.ZLIB(1)) as file:
        tree = file.mktree("events", {name: values.dtype for name, values in events.items()})
        for start in range(0, len(events["run"]), 100_000):
            tree.extend({name: values[start : start + 100_000] for name, values in events.items()})


def write_histogram(path: Path, masses: np.ndarray) -> None:
    """Write the mass histogram ``m_ee`` of some events."""
    with uproot.recreate(path, compression=uproot.ZLIB(1)) as file:
        file["m_ee"] = np.histogram(masses, BINS, (LOW, HIGH))


def _accepted(sample: Sample, rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    reach = np.arctan(2 * WINDOW / WIDTH) / np.pi
    mass = MASS + WIDTH / 2 * np.tan(np.pi * rng.uniform(-reach, reach, count))
    boson = _boson(sample, rng, mass)
    plus, minus = (_boost(boson, mass, direction) for direction in _decay(rng, count))
    plus, minus = (_smear(sample, rng, electron) for electron in (plus, minus))
    leading = _pt(plus) >= _pt(minus)
    first, second = np.where(leading[:, None], plus, minus), np.where(leading[:, None], minus, plus)
    keep = (_pt(second) > MIN_PT) & (np.abs(_eta(first)) < MAX_ETA) & (np.abs(_eta(second)) < MAX_ETA)
    charge = np.where(leading, 1, -1).astype(np.int32)
    branches: dict[str, np.ndarray] = {}
    for name, electron, sign in (("el1", first, charge), ("el2", second, -charge)):
        for quantity, values in (("pt", _pt), ("eta", _eta), ("phi", _phi)):
            branches[f"{name}_{quantity}"] = values(electron)[keep].astype(np.float32)
        branches[f"{name}_q"] = sign[keep]
    pair = first + second
    square = pair[:, 0] ** 2 - (pair[:, 1:] ** 2).sum(axis=1)
    branches["m_ee"] = np.sqrt(np.maximum(square, 0))[keep].astype(np.float32)
    branches["m_true"] = mass[keep].astype(np.float32)
    return branches


def _boson(sample: Sample, rng: np.random.Generator, mass: np.ndarray) -> np.ndarray:
    """Four-momenta (E, px, py, pz) of the bosons."""
    count = len(mass)
    limit = np.log(1000 * sample.sqrt_s / MASS)
    rapidity = np.clip(rng.normal(0, limit / 3, count), -limit, limit)
    pt = rng.gamma(2.0, 6.0, count)
    phi = rng.uniform(-np.pi, np.pi, count)
    transverse = np.hypot(mass, pt)
    return np.stack(
        [transverse * np.cosh(rapidity), pt * np.cos(phi), pt * np.sin(phi), transverse * np.sinh(rapidity)],
        axis=1,
    )


def _decay(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Opposite directions in the rest frame, with 1 + cos^2 of the polar angle."""
    # Solve (3/8)(c + c^3/3) + 1/2 = u for c (Cardano; one real root).
    half = 4 * rng.uniform(size=count) - 2
    root = np.sqrt(half**2 + 1)
    cosine = np.clip(np.cbrt(half + root) + np.cbrt(half - root), -1, 1)
    sine = np.sqrt(1 - cosine**2)
    phi = rng.uniform(-np.pi, np.pi, count)
    direction = np.stack([sine * np.cos(phi), sine * np.sin(phi), cosine], axis=1)
    return direction, -direction


def _boost(boson: np.ndarray, mass: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """A massless daughter of half the boson's mass, taken from the rest frame to the laboratory."""
    energy = mass / 2
    momentum = direction * energy[:, None]
    beta = boson[:, 1:] / boson[:, :1]
    gamma = boson[:, 0] / mass
    along = (beta * momentum).sum(axis=1)
    factor = gamma**2 / (1 + gamma) * along + gamma * energy
    return np.concatenate(
        [(gamma * (energy + along))[:, None], momentum + factor[:, None] * beta],
        axis=1,
    )


def _smear(sample: Sample, rng: np.random.Generator, electron: np.ndarray) -> np.ndarray:
    energy = electron[:, 0]
    resolution = np.hypot(sample.stochastic / np.sqrt(energy), sample.constant)
    scale = np.maximum(1 + resolution * rng.normal(size=len(energy)), 0.05)
    return electron * scale[:, None]


def _pt(momentum: np.ndarray) -> np.ndarray:
    return np.hypot(momentum[:, 1], momentum[:, 2])


def _eta(momentum: np.ndarray) -> np.ndarray:
    return np.arcsinh(momentum[:, 3] / _pt(momentum))


def _phi(momentum: np.ndarray) -> np.ndarray:
    return np.arctan2(momentum[:, 2], momentum[:, 1])
