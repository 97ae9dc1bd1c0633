"""Imports go down only, and each kind of work is done in one module."""

from __future__ import annotations

import ast
import subprocess
import sys
import types
from pathlib import Path

import pytest

import segq

ROOT = Path(segq.__file__).parent
ORDER = [  # packages and modules, the lowest first; a row may import the rows above it in this list, and nothing else
    ["_core.base"],
    ["_core.format"],
    ["_core.system"],
    ["_core.segment"],
    ["_core.directory"],
    ["_core.recovery"],
    ["_core.background"],
    ["_core.put", "_core.take"],
    ["handles", "errors"],
    ["doctor"],
    ["engines"],
    ["_moved"],
    ["__init__"],
    ["aio", "futures", "metrics", "watch", "connectors", "compat", "transfer", "pipeline"],
    ["__main__", "cli"],
]
RANK = {name: rank for rank, row in enumerate(ORDER) for name in row}
EVERYTHING = sorted(path for path in ROOT.rglob("*.py") if path.relative_to(ROOT).as_posix() != "_core/__init__.py")
ENGINE = [  # what works on a queue's directory
    path
    for path in EVERYTHING
    if path.relative_to(ROOT).parts[0] in ("_core", "handles", "doctor") or path.parent in (ROOT, ROOT / "engines")
]
PACKAGES = [ROOT / name.replace(".", "/") for name in RANK if (ROOT / name.replace(".", "/")).is_dir()]


def place_of(parts: tuple[str, ...]) -> str:
    """The row's name for a module, given its path below `segq`."""
    return ".".join(parts[:2]) if parts[0] == "_core" else parts[0]


def package_of(path: Path) -> str:
    return place_of(path.relative_to(ROOT).with_suffix("").parts)


def modules_imported(path: Path) -> set[tuple[str, ...]]:
    """The paths below `segq` of all that a file imports from it, wherever in the file; `("__init__",)` for the package itself."""
    found: set[tuple[str, ...]] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {tuple(a.name.split(".")[1:]) or ("__init__",) for a in node.names if a.name.split(".")[0] == "segq"}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "segq":
            rest = tuple((node.module or "").split(".")[1:])
            for alias in node.names:
                whole = (*rest, alias.name)
                is_module = ROOT.joinpath(*whole).is_dir() or ROOT.joinpath(*whole).with_suffix(".py").exists()
                public = not rest and hasattr(segq, alias.name) and not isinstance(getattr(segq, alias.name), types.ModuleType)
                found.add(whole if is_module and not public else rest or ("__init__",))
    return found


def imported(path: Path) -> set[str]:
    """The rows of `ORDER` that a file imports."""
    return {place_of(parts) for parts in modules_imported(path)}


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
    assert {package_of(path) for path in EVERYTHING} <= RANK.keys()


@pytest.mark.parametrize("path", EVERYTHING, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_from_its_own_package_or_from_lower_ones(path: Path) -> None:
    own = package_of(path)
    assert not {name for name in imported(path) if RANK[name] >= RANK[own] and name != own and RANK[own] < RANK["aio"]}
    assert not {name for name in imported(path) if RANK[name] > RANK[own]}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_within_a_package_make_no_circle(package: Path) -> None:
    modules = {path.relative_to(ROOT).with_suffix("").parts: path for path in package.rglob("*.py")}
    names = {".".join(parts): {".".join(other) for other in modules_imported(path)} for parts, path in modules.items()}
    cycle_free(names)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_package_says_what_it_is(package: Path) -> None:
    assert ast.get_docstring(ast.parse((package / "__init__.py").read_text()))


MOST_LINES = 350
GROWN = {  # modules over the limit that wait for their noun; the list only gets shorter
    "_core/directory/catalog.py",
    "_core/format/format.py",
    "_core/put/producer.py",
    "_core/put/writer.py",
    "_core/recovery/recovery.py",
    "_core/segment/ledger.py",
    "_core/segment/ledger_view.py",
    "_core/segment/rocksdb.py",
    "_core/system/fs.py",
    "_core/take/consumer.py",
    "compat/persistqueue/table.py",
    "connectors/http/sink.py",
    "engines/nats/connection.py",
    "futures.py",
    "pipeline/stages.py",
}


@pytest.mark.parametrize("path", EVERYTHING, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_is_longer_than_a_reader_can_hold(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    name = path.relative_to(ROOT).as_posix()
    assert (lines > MOST_LINES) == (name in GROWN), f"{name} has {lines} lines"


def test_a_producer_never_imports_a_consumer_nor_what_only_consumers_use() -> None:
    for path in (ROOT / "_core" / "put").glob("*.py"):
        assert "_core.take" not in imported(path)
        assert ("_core", "base", "message") not in modules_imported(path)
    for path in (ROOT / "_core" / "take").glob("*.py"):
        assert "_core.put" not in imported(path)


@pytest.mark.parametrize("path", EVERYTHING, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_one_module_knows_rocksdb(path: Path) -> None:
    if package_of(path) not in ("transfer", "compat") and path.relative_to(ROOT).as_posix() != "_core/segment/rocksdb.py":
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


@pytest.mark.parametrize("path", ENGINE, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_fs_and_mapped_rename_sync_and_delete(path: Path) -> None:
    if path.stem not in ("fs", "mapped"):
        assert not calls(path, "os") & FILES_CHANGE
        assert not calls(path, "shutil")


@pytest.mark.parametrize("path", ENGINE, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_locks_locks(path: Path) -> None:
    if path.stem != "locks":
        assert not calls(path, "fcntl")
        assert not calls(path, "filelock")


@pytest.mark.parametrize("path", EVERYTHING, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_text_that_may_be_stored_names_a_private_module(path: Path) -> None:
    """A key or a name that is kept outside the process must stay the same when a module moves."""
    tree = ast.parse(path.read_text())
    texts = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
    named = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in texts
        and "segq._core" in node.value
    ]
    assert not named


def test_the_package_only_re_exports() -> None:
    body = ast.parse((ROOT / "__init__.py").read_text()).body
    allowed = (ast.ImportFrom, ast.Assign, ast.Expr)
    assert all(isinstance(node, allowed) or ast.unparse(node) == "import segq._moved" for node in body)
    assert set(segq.__all__) == {
        name.asname or name.name for node in body if isinstance(node, ast.ImportFrom) for name in node.names
    }


def test_importing_segq_does_not_import_what_only_some_need() -> None:
    code = "import sys, segq; print(sorted({'psutil', 'click', 'rich', 'multiprocessing'} & sys.modules.keys()))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
