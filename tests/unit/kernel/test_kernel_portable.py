"""What a profile's oldest Python needs of the two files that are copied into its kernels."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

KERNEL = Path(__file__).parents[3] / "jupyterhub_dmsp" / "kernel"
FILES = ("dmsp.py", "dmsp_root.py")


def _executed(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes except those that only type checkers see."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for other in node.orelse:
                yield other
                yield from _executed(other)
        else:
            yield node
            yield from _executed(node)


def _imports(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name.split(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom):
        return {"." if node.level or not node.module else node.module.split(".")[0]}
    return set()


def test_these_are_all_files() -> None:
    assert {file.name for file in KERNEL.glob("*.py")} == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_old_syntax(name: str) -> None:
    tree = ast.parse((KERNEL / name).read_text(encoding="utf-8"), feature_version=(3, 8))
    future = [n for n in tree.body if isinstance(n, ast.ImportFrom) and n.module == "__future__"]
    assert [alias.name for node in future for alias in node.names] == ["annotations"]


@pytest.mark.parametrize("name", FILES)
def test_only_the_standard_library(name: str) -> None:
    tree = ast.parse((KERNEL / name).read_text(encoding="utf-8"))
    names = {found for node in _executed(tree) for found in _imports(node)}
    assert names <= set(sys.stdlib_module_names) | ({"dmsp", "ROOT"} if name == "dmsp_root.py" else set())


@pytest.mark.parametrize("name", FILES)
def test_base_classes_exist_in_old_versions(name: str) -> None:
    """Annotations are never evaluated, base classes are: ``collections.abc.Sequence[str]`` needs 3.9."""
    tree = ast.parse((KERNEL / name).read_text(encoding="utf-8"))
    bases = [base for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for base in node.bases]
    generic = {ast.unparse(base.value) for base in bases if isinstance(base, ast.Subscript)}
    imports = [n for n in tree.body if isinstance(n, ast.ImportFrom) and n.module == "typing"]
    assert generic <= {alias.name for node in imports for alias in node.names}
