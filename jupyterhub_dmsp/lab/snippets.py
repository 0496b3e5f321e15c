"""The code that a running kernel executes to bind a variable: it reads the manifest, no list of paths travels.

All but Python's end by printing ``DMSP-BOUND <variable> <count>`` or ``DMSP-NOT-BOUND <variable> <reason>``: some
kernels answer neither expressions nor errors.
"""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Iterable
from pathlib import Path

LANGUAGES = ("python", "c++", "r", "julia")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_CPP = _words(
    """alignas alignof and and_eq asm auto bitand bitor bool break case catch char class compl concept const
    consteval constexpr constinit const_cast continue co_await co_return co_yield decltype default delete do double
    dynamic_cast else enum explicit export extern false float for friend goto if inline int long mutable namespace
    new noexcept not not_eq nullptr operator or or_eq private protected public register reinterpret_cast requires
    return short signed sizeof static static_assert static_cast struct switch template this thread_local throw true
    try typedef typeid typename union unsigned using virtual void volatile wchar_t while xor xor_eq std main"""
)
_R = _words("if else repeat while function for next break TRUE FALSE NULL Inf NaN NA in c t q")
_JULIA = _words(
    """baremodule begin break catch const continue do else elseif end export false finally for function global if
    import let local macro module quote return struct true try using while"""
)
_PYTHON = (
    frozenset(keyword.kwlist) | frozenset(keyword.softkwlist) | frozenset(dir(builtins)) | {"In", "Out", "dmsp"}
)
RESERVED = {"python": _PYTHON, "c++": _CPP, "r": _R, "julia": _JULIA}
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,79}")


def valid(variable: str) -> bool:
    """Whether a name can be a variable in each of the languages."""
    if not _IDENTIFIER.fullmatch(variable) or variable.startswith("__"):
        return False
    return not any(variable in reserved for reserved in RESERVED.values())


def suggest(name: str, taken: Iterable[str]) -> str:
    """A variable name for a DID's name: readable, valid in all languages, and not taken."""
    stem = name.rstrip("/").rpartition("/")[2]
    stem = re.sub(
        r"\.(root|ds|ct|dat|hdf5|h5|fits|csv|parquet|dataset|container)$", "", stem, flags=re.IGNORECASE
    )
    base = re.sub(r"_+", "_", re.sub(r"[^a-z0-9]+", "_", stem.lower())).strip("_")[:40].rstrip("_")
    if not base or not base[0].isalpha():
        base = f"data_{base}".rstrip("_")
    if not valid(base):
        base = f"{base}_data"
    used = set(taken)
    candidate, number = base, 2
    while candidate in used or not valid(candidate):
        candidate, number = f"{base}_{number}", number + 1
    return candidate


def snippets(variable: str, ident: str, directory: Path, ready: bool) -> dict[str, str]:
    """Code by language that binds a variable to an attachment.

    Args:
        variable: a name that :func:`valid` accepts.
        ident: the attachment's id (hexadecimal).
        directory: the directory of its manifest.
        ready: whether it can be read now. If not, Python gets a variable that says so, the others a message and
            no variable: an empty vector would look like an empty dataset.
    """
    if not valid(variable) or not re.fullmatch(r"[0-9a-f]{16}", ident):
        raise ValueError("not a variable and an id")
    paths = str(directory / "paths.txt").replace("\\", "\\\\").replace('"', '\\"')
    found, lost = f"DMSP-BOUND {variable}", f"DMSP-NOT-BOUND {variable} it is not ready"
    python = f'__import__("dmsp")._bind(globals(), "{variable}", "{ident}", True)'
    if not ready:
        return {
            "python": python,
            "c++": f'#include <iostream>\nstd::cout << "{lost}" << std::endl;',
            "r": f'cat("{lost}\\n")',
            "julia": f'println("{lost}")',
        }
    return {
        "python": python,
        "c++": (
            "#include <fstream>\n#include <iostream>\n#include <string>\n#include <vector>\n"
            f"std::vector<std::string> {variable};\n"
            f'{{ std::ifstream dmsp_in("{paths}"); std::string dmsp_line;\n'
            f"  while (std::getline(dmsp_in, dmsp_line)) {variable}.push_back(dmsp_line);\n"
            f'  std::cout << "{found} " << {variable}.size() << std::endl; }}'
        ),
        "r": f'{variable} <- readLines("{paths}", encoding = "UTF-8"); cat("{found}", length({variable}), "\\n")',
        "julia": f'global {variable} = readlines("{paths}"); println("{found} ", length({variable}));',
    }
