"""Starts ROOT's C++ kernel with the notebook's variables declared: ``python -m dmsp_root -f {connection_file}``.

Each variable is a ``std::vector<std::string>`` of paths. What is not ready is not declared, with a line that says
so: an empty vector would look like an empty dataset.
"""

from __future__ import annotations

import os
import runpy
import sys
from typing import TYPE_CHECKING, Iterable, Protocol, Tuple

if TYPE_CHECKING:
    from jupyterhub_dmsp.kernel import dmsp
else:
    import dmsp

_READ = r"""
#include <fstream>
#include <string>
#include <vector>
namespace dmsp {
inline std::vector<std::string> read(const char *path) {
  std::vector<std::string> lines;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}
}
"""


class _Interpreter(Protocol):
    """What is used of ``ROOT.gInterpreter``."""

    def Declare(self, code: str, /) -> object: ...

    def ProcessLine(self, line: str, /) -> object: ...


def declare(interpreter: _Interpreter, bindings: Iterable[Tuple[str, str]]) -> None:
    """Declare the variables of a notebook in a cling interpreter.

    Args:
        interpreter: ``ROOT.gInterpreter``.
        bindings: pairs of variable and attachment id.
    """
    interpreter.Declare(_READ)
    for variable, ident in bindings:
        try:
            len(dmsp.Dataset(ident))
        except dmsp.DmspError as error:
            sys.stderr.write("dmsp: %s is not declared: %s\n" % (variable, error))
            continue
        path = os.path.join(os.environ["DMSP_RUNTIME"], "attachments", ident, "paths.txt")
        literal = path.replace("\\", "\\\\").replace('"', '\\"')
        interpreter.ProcessLine('std::vector<std::string> %s = dmsp::read("%s");' % (variable, literal))


def main() -> None:
    """Declare, then be the stock kernel."""
    import ROOT

    declare(ROOT.gInterpreter, dmsp._bindings())
    runpy.run_module("ROOT._jupyroot.kernel.rootkernel", run_name="__main__")


if __name__ == "__main__":
    main()
