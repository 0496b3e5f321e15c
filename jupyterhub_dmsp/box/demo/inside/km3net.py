# mypy: disable-error-code="import-not-found,import-untyped,no-any-return,no-untyped-def"
"""Scope ``km3net``: real and simulated KM3NeT files from ``km3net-testdata``, and the responses of ``km3irf``.

Run, detector, number of events and energies in the metadata are read from the files.
"""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import awkward as ak
import uproot

SCOPE = "km3net"
SOURCE = f"km3net-testdata {version('km3net-testdata')}"
IRF_SOURCE = f"km3irf {version('km3irf')}"
IRFS = ("aeff.fits", "bkg_mu.fits", "bkg_nu.fits", "edisp.fits", "psf.fits")

# dataset: (files below the package's data folder, positions of the sites, what the files cannot say)
SIMULATED: dict[str, tuple[tuple[str, ...], tuple[int, ...], dict[str, Any]]] = {
    "mc.numu-CC.genhen.offline": (
        ("offline/numucc.root",),
        (0, 1),
        {"interaction": "numu CC", "generator": "GENHEN"},
    ),
    "mc.nue-CC.gseagen.offline.v6": (
        ("offline/mcv6.gsg_nue-CCHEDIS_1e4-1e6GeV.sirene.jte.jchain.aanet.1.root",),
        (0,),
        {"interaction": "nue CC", "generator": "gSeaGen", "production": "v6"},
    ),
    "mc.numu-CC.gseagen.offline.r00004695": (
        ("offline/mcv5.11r2.gsg_muonCChigherE-CC_50-5000GeV.km3_AAv1.jterbr00004695.jchain.aanet.498.root",),
        (0,),
        {"interaction": "numu CC", "generator": "gSeaGen", "production": "v5.11r2"},
    ),
    "mc.numu-CC.gseagen.offline.r00008357": (
        ("offline/mcv6.0.gsg_muon_highE-CC_50-500GeV.km3sim.jterbr00008357.jorcarec.aanet.905.root",),
        (0, 2),
        {"interaction": "numu CC", "generator": "gSeaGen", "production": "v6.0"},
    ),
    "mc.neutrinos.offline.v9.2.r00011291": (
        (
            "offline/KM3NeT_00000049_00011291.mc.gsg_neutrinos.km3sim_sirene_merged.jterbr."
            "jppmuon_jppshower_static.offline.v9.2.sample.root",
        ),
        (1,),
        {"interaction": "all", "generator": "gSeaGen", "production": "v9.2"},
    ),
    "mc.muon-CC.offline": (("offline/muon_cc_events.root",), (1,), {"interaction": "numu CC"}),
}

MEASURED: dict[str, tuple[tuple[str, ...], tuple[int, ...], dict[str, Any]]] = {
    "data.offline.d00000044.r00005971": (("offline/km3net_offline.root",), (1, 2), {"stage": "offline"}),
    "data.online.d00000267.r00025291": (
        (
            "online/KM3NeT_00000267_00025291_JDAQEvent_JDAQSummaryslice.root",
            "online/KM3NeT_00000267_00025291_L1.root",
            "online/KM3NeT_00000267_00025291_SN.root",
        ),
        (2,),
        {"stage": "raw", "det_id": 267, "run": 25291},
    ),
    "data.online.d00000133": (
        ("online/KM3NeT_00000133_JDAQEvent.root",),
        (2,),
        {"stage": "raw", "det_id": 133},
    ),
    "data.online.d00000049.r00008456": (
        ("online/KM3NeT_00000049_00008456.summaryslice-167941.root",),
        (2,),
        {"stage": "raw", "det_id": 49, "run": 8456},
    ),
    "data.online.samples": (
        ("online/events_sample.root", "online/km3net_online.root", "online/summaryslices.root"),
        (2,),
        {"stage": "raw"},
    ),
    "data.dst.orca": (("dst/orca4_sample.root", "dst/orca6_sample.root"), (1,), {"stage": "dst"}),
    "data.oscillations.orca6.433kt-y.v0.5": (
        ("oscillations/ORCA6_433kt-y_opendata_v0.5_testdata.root", "oscillations/bins_433kt-y_v0.4.json"),
        (0, 1),
        {"stage": "high level", "detector": "ORCA6", "exposure_kton_year": 433},
    ),
    "data.calibration.orientations": (
        (
            "calib/KM3NeT_00000049_0.0.0_00007631_00007676_1.orientations.root",
            "calib/KM3NeT_00000133_D_1.0.0_00017397_00017496_1.orientations.root",
        ),
        (1,),
        {"stage": "calibration"},
    ),
}


def fill(catalogue: Any) -> None:
    """Take in all files of the scope, in three containers below one."""
    simulated = [
        _dataset(catalogue, name, files, sites, {"kind": "MC", "stage": "offline", **meta})
        for name, (files, sites, meta) in SIMULATED.items()
    ]
    measured = [
        _dataset(catalogue, name, files, sites, {"kind": "data", **meta})
        for name, (files, sites, meta) in MEASURED.items()
    ]
    responses = _responses(catalogue)
    parts = [
        catalogue.container(SCOPE, "km3net.mc", simulated, {"kind": "MC"}),
        catalogue.container(SCOPE, "km3net.data", measured, {"kind": "data"}),
        catalogue.container(SCOPE, "km3net.irf", responses, {"kind": "IRF"}),
    ]
    catalogue.container(SCOPE, "km3net.2026", parts, {"experiment": "KM3NeT", "source": SOURCE})


def opendata(ending: str) -> Path:
    """ORCA6's public sample of a version (``v0.5.root``), or its binning (``v0.4.json``)."""
    version, _, kind = ending.rpartition(".")
    name = f"ORCA6_433kt-y_opendata_{version}_testdata.root" if kind == "root" else f"bins_433kt-y_{ending}"
    return _package("km3net_testdata") / "data" / "oscillations" / name


def point_source_irfs() -> list[Path]:
    """The published responses for point sources."""
    return [_package("km3irf") / "data" / name for name in IRFS]


def read_metadata(path: Path) -> dict[str, Any]:
    """What a ROOT file of KM3NeT tells: events of each filled tree, run, detector, energies of the primaries."""
    meta: dict[str, Any] = {}
    with uproot.open(path) as file:
        counts = {}
        for key, kind in file.classnames(recursive=False, cycle=False).items():
            if kind == "TTree" and file[key].num_entries:
                counts[key] = file[key].num_entries
        meta["trees"] = counts
        if counts.get("E"):
            meta["n_events"] = counts["E"]
            meta.update(_read_events(file["E"]))
        elif counts.get("KM3NET_EVENT"):
            meta["n_events"] = counts["KM3NET_EVENT"]
    return meta


def _read_events(tree: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    names = {name.rpartition("/")[2]: name for name in tree.keys()}  # noqa: SIM118 - not a mapping
    for key, branch in (("run", "run_id"), ("det_id", "det_id")):
        if branch in names:
            values = sorted(set(tree[names[branch]].array().tolist()))
            if len(values) == 1 and values[0] > 0:
                found[key] = values[0]
    if "mc_trks.E" in names:
        energies = ak.firsts(tree[names["mc_trks.E"]].array())
        if ak.any(~ak.is_none(energies)):
            found["energy_min_gev"] = round(float(ak.min(energies)), 3)
            found["energy_max_gev"] = round(float(ak.max(energies)), 3)
    return found


def _dataset(
    catalogue: Any, name: str, files: tuple[str, ...], sites: tuple[int, ...], meta: dict[str, Any]
) -> str:
    data = _package("km3net_testdata") / "data"
    names = []
    told: list[dict[str, Any]] = []
    for file in files:
        path = data / file
        own = read_metadata(path) if path.suffix == ".root" else {}
        told.append({key: value for key, value in own.items() if key != "trees"})
        names.append(catalogue.copy(SCOPE, path, {**meta, **own, "source": SOURCE}))
    # Of the dataset is true what all of its files say.
    common = {key: value for key, value in told[0].items() if all(own.get(key) == value for own in told)}
    about = {"experiment": "KM3NeT", **common, **meta, "source": SOURCE}
    return catalogue.dataset(SCOPE, name, names, about, sites)


def _responses(catalogue: Any) -> list[str]:
    meta = {"kind": "IRF", "detector": "ARCA", "source": IRF_SOURCE}
    published = [catalogue.copy(SCOPE, p, {**meta, "response": p.stem}) for p in point_source_irfs()]
    folder = _package("km3irf") / "data"
    others = sorted(path for path in folder.glob("*.fits") if path.name not in IRFS)
    raw = [catalogue.copy(SCOPE, p, {**meta, "response": p.stem}) for p in others]
    return [
        catalogue.dataset(SCOPE, "irf.point-source.v0.4", published, meta, (0, 2)),
        catalogue.dataset(SCOPE, "irf.point-source.v0.4.variants", raw, meta, (2,)),
    ]


def _package(name: str) -> Path:
    """A package's folder, without importing the package."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"The package {name} is not installed")
    return Path(next(iter(spec.submodule_search_locations)))
