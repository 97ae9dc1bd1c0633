"""Imports go down only, and each kind of work is done in one module."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import segq

ROOT = Path(segq.__file__).parent
LAYERS = [
    ["errors", "failpoints", "settings", "format", "blocks", "serializers", "sized"],
    ["fs", "mapped", "futex", "locks", "process", "letter"],
    [
        "batch",
        "blob",
        "ledger_view",
        "ledger_receipts",
        "ledger",
        "index",
        "alarm",
        "message",
        "segment",
        "wal",
        "label",
        "labels",
        "contents",
        "problem",
        "journal",
    ],
    ["catalog", "topic_catalog", "label_catalog"],
    ["loading", "view", "rescue", "burial", "claims", "shelf", "claimer", "caretaker", "stats", "keeper", "tidier", "place"],
    ["producer", "consumer"],
    ["handle", "putting", "getting", "dead", "subscription"],
    ["queue", "topic", "examination", "segment_examination", "repair", "check", "salvage"],
    ["engines", "connect"],
    ["bridge"],
    ["__init__"],
    ["aio", "futures", "metrics", "watch", "connectors", "compat", "transfer", "pipeline"],
    ["__main__", "cli"],
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
MODULES = sorted(ROOT.glob("*.py"))
EVERYTHING = sorted(ROOT.rglob("*.py"))


def module_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """The modules of segq that a file imports, wherever in it; `__init__` for the package itself."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {
                a.name.split(".")[1] if "." in a.name else "__init__" for a in node.names if a.name.split(".")[0] == "segq"
            }
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "segq":
            rest = (node.module or "").split(".")[1:]
            names = {a.name for a in node.names}
            found |= {rest[0]} if rest else {name if name in RANK else "__init__" for name in names}
    return found


def cycle_free(modules: dict[str, set[str]]) -> list[str]:
    """The modules in an order in which each comes after all it imports; fails if there is none."""
    order: list[str] = []
    left = dict(modules)
    while left:
        free = [name for name, needs in left.items() if not (needs & left.keys()) - {name}]
        assert free, f"imports go in a circle among {sorted(left)}"
        order += free
        for name in free:
            del left[name]
    return order


def test_every_module_has_its_place() -> None:
    assert {module_of(path) for path in EVERYTHING} <= RANK.keys()


@pytest.mark.parametrize("path", EVERYTHING, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_from_its_own_layer_or_below(path: Path) -> None:
    above = {name for name in imported(path) if RANK[name] > RANK[module_of(path)]}
    assert not above


def test_imports_within_a_layer_make_no_circle() -> None:
    cycle_free({module_of(path): imported(path) for path in MODULES})


def test_a_producer_never_imports_a_consumer_nor_what_only_consumers_use() -> None:
    for name in ("producer", "loading"):
        assert not imported(ROOT / f"{name}.py") & {"consumer", "claims", "view", "message"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_only_segment_knows_rocksdb(path: Path) -> None:
    if path.stem != "segment":
        assert "rocksdict" not in {
            (name.split(".")[0])
            for node in ast.walk(ast.parse(path.read_text()))
            for name in ([a.name for a in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", "") or ""])
        }


FILES_CHANGE = {
    "rename",
    "replace",
    "renames",
    "fsync",
    "fdatasync",
    "unlink",
    "remove",
    "rmdir",
    "removedirs",
}


def calls(path: Path, owner: str) -> set[str]:
    """The functions of a module (`os.x`, `shutil.x`) that a file names."""
    return {
        node.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == owner
    }


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_only_fs_and_mapped_rename_sync_and_delete(path: Path) -> None:
    if path.stem not in ("fs", "mapped"):
        assert not calls(path, "os") & FILES_CHANGE
        assert not calls(path, "shutil")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_only_locks_locks(path: Path) -> None:
    if path.stem != "locks":
        assert not calls(path, "fcntl")
        assert not calls(path, "filelock")


def test_the_package_only_re_exports() -> None:
    body = ast.parse((ROOT / "__init__.py").read_text()).body
    allowed = (ast.ImportFrom, ast.Assign, ast.Expr)
    assert all(isinstance(node, allowed) for node in body)
    assert set(segq.__all__) == {
        name.asname or name.name for node in body if isinstance(node, ast.ImportFrom) for name in node.names
    }


def test_importing_segq_does_not_import_what_only_some_need() -> None:
    code = "import sys, segq; print(sorted({'psutil', 'click', 'rich', 'multiprocessing'} & sys.modules.keys()))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
