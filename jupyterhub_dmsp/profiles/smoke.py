"""Run a profile's smoke notebooks inside its environment.

``python -m jupyterhub_dmsp.profiles.smoke ROOT [SLUG…]`` builds the environments below ROOT and runs them.

A notebook passes when no cell raised, nothing stands on stderr as a C++ error (ROOT's kernel answers ``ok`` even
then), and its last cell printed a line that starts with ``smoke:``, which says what was found.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.profiles.builder import Progress, clean_environ, run_lines
from jupyterhub_dmsp.profiles.catalogue import Profile, load
from jupyterhub_dmsp.profiles.environments import Environments

SIGN = "smoke:"

# Runs with the environment's own papermill and knows only its kernels.
_RUN = """
import sys
import papermill
papermill.execute_notebook(sys.argv[1], sys.argv[2], cwd=sys.argv[3], progress_bar=False, start_timeout=120,
                           execution_timeout=int(sys.argv[4]))
"""


class SmokeFailed(DmspError):
    """A smoke notebook did not come to its end; ``output`` is what its run printed."""

    def __init__(self, slug: str, notebook: str, cause: str, output: str = "") -> None:
        super().__init__(f"The notebook {notebook} of the profile {slug} failed: {cause}")
        self.output = output


@dataclass(frozen=True)
class Finding:
    """What a smoke notebook found."""

    notebook: str
    sentence: str


async def run(profile: Profile, environment: Path, timeout: float = 300) -> list[Finding]:
    """Execute ``smoke*.ipynb`` of a profile in its finished environment.

    Args:
        profile: the profile.
        environment: its environment's folder.
        timeout: seconds that one notebook may take.

    Raises:
        SmokeFailed: at the first notebook that fails.
    """
    findings = []
    for notebook in sorted(profile.folder.glob("smoke*.ipynb")):
        with tempfile.TemporaryDirectory(prefix="dmsp-smoke-") as folder:
            output = Path(folder) / notebook.name
            await _execute(profile, environment, notebook, output, timeout)
            executed = await asyncio.to_thread(output.read_text, encoding="utf-8")
        findings.append(Finding(notebook.name, _verdict(profile.slug, notebook.name, json.loads(executed))))
    return findings


async def _execute(profile: Profile, environment: Path, notebook: Path, output: Path, timeout: float) -> None:
    folder = output.parent
    environ = clean_environ(
        PATH=f"{environment}/bin:/usr/bin:/bin",
        JUPYTER_PATH=str(environment / "share" / "jupyter"),
        JUPYTER_DATA_DIR=str(folder / "data"),
        JUPYTER_RUNTIME_DIR=str(folder / "runtime"),
        JUPYTER_CONFIG_DIR=str(folder / "config"),
        IPYTHONDIR=str(folder / "ipython"),
        MPLBACKEND="agg",
        MPLCONFIGDIR=str(folder / "matplotlib"),
    )
    argv = [str(environment / "bin" / "python"), "-c", _RUN]
    argv += [str(notebook), str(output), str(folder), str(int(timeout))]
    said: list[str] = []
    try:
        async with contextlib.aclosing(run_lines(argv, env=environ, timeout=timeout)) as lines:
            async for line in lines:
                said.append(line)
    except TimeoutError:
        cause = f"it took longer than {timeout:.0f} s."
        raise SmokeFailed(profile.slug, notebook.name, cause, "\n".join(said)) from None
    except ChildProcessError:
        cause = next((line.strip() for line in reversed(said) if line.strip()), "no output.")
        raise SmokeFailed(profile.slug, notebook.name, cause, "\n".join(said)) from None


def _verdict(slug: str, name: str, notebook: dict[str, Any]) -> str:
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    printed: dict[str, list[str]] = {"stdout": [], "stderr": []}
    for cell in cells:
        for output in cell["outputs"]:
            if output["output_type"] == "stream":
                printed[output["name"]].append("".join(output["text"]))
    errors = "".join(printed["stderr"])
    for line in errors.splitlines():
        if "error:" in line or line.startswith("wrong:"):
            raise SmokeFailed(slug, name, line.strip(), errors)
    for line in reversed("".join(printed["stdout"]).splitlines()):
        if line.startswith(SIGN):
            return line.removeprefix(SIGN).strip()
    raise SmokeFailed(slug, name, f"it printed no line with “{SIGN}”.", errors)


async def _main(root: Path, slugs: list[str]) -> int:
    environments = Environments(root)
    failed = 0
    for profile in load():
        if slugs and profile.slug not in slugs:
            continue

        def report(progress: Progress, slug: str = profile.slug) -> None:
            _say(f"{slug}: {progress.message}")

        try:
            environment = await environments.ensure(profile.environment(), report)
            for finding in await run(profile, environment):
                _say(f"{profile.slug}: {finding.notebook}: {finding.sentence}")
        except DmspError as error:
            failed += 1
            _say(f"{profile.slug}: {error}")
    return 1 if failed else 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    """The command line; its exit code is 1 when a profile failed."""
    parser = argparse.ArgumentParser(description="Build profiles and run their smoke notebooks.")
    parser.add_argument("root", type=Path, help="folder of the environments")
    parser.add_argument("slugs", nargs="*", help="profiles; all when none is named")
    arguments = parser.parse_args()
    return asyncio.run(_main(arguments.root, arguments.slugs))


if __name__ == "__main__":
    sys.exit(main())
