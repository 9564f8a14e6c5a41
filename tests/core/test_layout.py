"""The house as CONTRIBUTING describes it: imports go one way, no circles, no long files, a light core."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("ske_models", "ske_tasks", "training")
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
CORE = [name for name in FILES if name.startswith("ske_models") and name.count(".") == 1] + [
    name for name in FILES if name.startswith("ske_models.prompts.")
]
NOT_CORE = {"ske_models.lm_eval", "ske_models.opencompass", "ske_models.engines", "ske_models.plugin"}
CORE = [name for name in CORE if name not in NOT_CORE | {"ske_models.embedded", "ske_models.__main__"}]


def statements(tree: ast.AST, everywhere: bool) -> Iterator[ast.stmt]:
    """The import statements of a module: all, or only those that run when it is imported."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif everywhere or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield from statements(node, everywhere)


def imports(name: str, everywhere: bool = False) -> set[str]:
    """The modules that a module names in its imports, those under TYPE_CHECKING included."""
    found = set()
    for node in statements(ast.parse(FILES[name].read_text(encoding="utf-8")), everywhere):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = {module for module in inner if module in FILES}
            found |= modules if len(modules) == len(inner) else modules | {node.module}
    return found


def test_there_is_no_import_circle():
    graph = {name: imports(name) & FILES.keys() for name in FILES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


@pytest.mark.parametrize("name", FILES)
def test_imports_go_one_way(name):
    package = name.split(".")[0]
    later = PACKAGES[PACKAGES.index(package) + 1 :]
    assert [module for module in imports(name, everywhere=True) if module.split(".")[0] in later] == []


@pytest.mark.parametrize("name", CORE)
def test_the_core_knows_no_engine_and_no_harness(name):
    outside = {"lm_eval", "opencompass", "torch", "transformers", "vllm"}
    named = imports(name, everywhere=True)
    assert [m for m in named if m.split(".")[0] in outside or ".".join(m.split(".")[:2]) in NOT_CORE] == []


@pytest.mark.parametrize("name", FILES)
def test_no_file_is_longer_than_350_lines(name):
    assert len(FILES[name].read_text(encoding="utf-8").splitlines()) <= 350


def test_the_core_loads_neither_a_harness_nor_torch():
    code = "import sys, ske_models.method, ske_models.pipeline, ske_models.setup; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "ske_models" in loaded
    heavy = {"torch", "transformers", "lm_eval", "opencompass", "vllm", "huggingface_hub", "numpy"}
    assert loaded & heavy == set()


def test_the_walks_in_the_docs_name_what_is_there():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    stops = re.findall(r"^\| \d+ \| `([\w/]+\.py): ([\w.]+)`", page, re.MULTILINE)
    assert len(stops) > 15
    for file, name in stops:
        defined: set[str] = set()
        for node in ast.parse((ROOT / file).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                defined.add(node.name)
            if isinstance(node, ast.ClassDef):
                defined |= {f"{node.name}.{f.name}" for f in node.body if isinstance(f, ast.FunctionDef)}
        assert name in defined, f"{file}: {name}"
    walks = re.split(r"^## ", page, flags=re.MULTILINE)[2:]
    assert all(len(re.findall(r"^\| \d+ ", walk, re.MULTILINE)) < 12 for walk in walks)
