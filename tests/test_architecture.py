"""The direction of imports, and who may touch what, as STYLE.md draws it; read from the sources, nothing is imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
           for folder in ("saadi", "ui") for path in sorted((ROOT / folder).rglob("*.py"))}
if (ROOT / "app.py").exists():
    MODULES["app"] = ROOT / "app.py"

FACTS, BORDERS, PARTS, QUEUE, RECIPES, COMMANDS, PAGE, PROGRAM = range(8)
LEVELS = {
    "saadi": FACTS, "saadi.errors": FACTS, "saadi.records": FACTS, "saadi.config": FACTS,
    "saadi.decoding": BORDERS, "saadi.decoding_formats": BORDERS, "saadi.masks": BORDERS, "saadi.devices": BORDERS,
    "saadi.poses": BORDERS, "saadi.mask_generator": RECIPES,
    "saadi.trust": BORDERS, "saadi.conditions": BORDERS, "saadi.engines.weights": BORDERS, "saadi.engines.norms": BORDERS,
    "saadi.datasets": PARTS, "saadi.engines": PARTS, "saadi.downstream": PARTS, "saadi.segmentation": PARTS,
    "saadi.quality": PARTS, "saadi.privacy": PARTS, "saadi.preferences": PARTS, "saadi.store": PARTS, "saadi.mining": PARTS,
    "saadi.agreement": PARTS, "saadi.asking": PARTS,
    "saadi.jobs": QUEUE, "saadi.inpainting": QUEUE, "saadi.previews": QUEUE, "saadi.orders": QUEUE, "saadi.worker": QUEUE,
    # Recipes hold a store in one hand and a model, a folder or votes in the other.
    "saadi.alignment": RECIPES, "saadi.evidence": RECIPES, "saadi.exports": RECIPES, "saadi.generation": RECIPES,
    "saadi.pairing": RECIPES, "saadi.settled": RECIPES, "saadi.singles": RECIPES, "saadi.demo": RECIPES,
    "saadi.datasets.folder": RECIPES, "saadi.engines.fitting": RECIPES, "saadi.engines.few_shot": RECIPES,
    "saadi.engines.stable_diffusion_fitting": RECIPES,
    "saadi.engines.checkpoints": RECIPES, "saadi.downstream.training": RECIPES, "saadi.downstream.scoring": RECIPES,
    "saadi.downstream.prediction": RECIPES,
    "saadi.datasets.real": RECIPES, "saadi.curation": RECIPES,
    "saadi.plausibility": RECIPES, "saadi.quality_gate": RECIPES, "saadi.refinement": RECIPES, "saadi.refining": RECIPES,
    "saadi.mining.seen": QUEUE, "saadi.mining.job": RECIPES, "saadi.mining.noise_shift": RECIPES,
    "saadi.mining.learning": RECIPES, "saadi.atlas": RECIPES, "saadi.release": RECIPES,
    "saadi.segmentation.helper": RECIPES, "saadi.segmentation.service": RECIPES,
    "saadi.cli": COMMANDS, "saadi.doctor": COMMANDS, "saadi.bench": COMMANDS, "saadi.__main__": COMMANDS,
    "ui": PAGE, "app": PROGRAM,
}
"""The longest prefix of a module's name counts."""


def known_prefix(module: str) -> str:
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        if (prefix := ".".join(parts[:length])) in LEVELS and (prefix != "saadi" or module == "saadi"):
            return prefix
    raise AssertionError(f"{module} has no level yet; add it to LEVELS in {Path(__file__).name} (and to STYLE.md's map)")


def level(module: str) -> int:
    return LEVELS[known_prefix(module)]


def imports(path: Path) -> Iterator[str]:
    """Full names of everything imported, also inside functions; `from saadi import masks` is `saadi.masks`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            base = node.module or ""
            inner = {f"{base}.{alias.name}" for alias in node.names}
            yield from (name if name in MODULES else base for name in inner)


def own_imports(module: str) -> Iterator[str]:
    yield from (name for name in imports(MODULES[module]) if name in MODULES and name != module)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_arrows_point_down(module: str) -> None:
    for other in own_imports(module):
        if known_prefix(other) == known_prefix(module) or other.rsplit(".", 1)[0] == module.rsplit(".", 1)[0] != "saadi":
            continue  # inside one package
        is_neighbour_of_rank = level(other) == level(module) != PARTS
        assert level(other) < level(module) or is_neighbour_of_rank, f"{module} must not import {other}"


@pytest.mark.parametrize("module", [name for name in sorted(MODULES) if name.startswith("saadi")])
def test_saadi_knows_no_page(module: str) -> None:
    assert not [name for name in imports(MODULES[module]) if name.split(".")[0] in ("gradio", "ui", "app")]


@pytest.mark.parametrize("module", [name for name in sorted(MODULES) if name.startswith(("saadi.store", "ui", "saadi.orders"))])
def test_store_page_and_orders_know_no_torch(module: str) -> None:
    heavy = ("torch", "diffusers", "transformers", "peft", "monai", "torchvision")
    assert not [name for name in imports(MODULES[module]) if name.split(".")[0] in heavy]


def test_nobody_imports_torchvision() -> None:
    assert not [module for module, path in MODULES.items() if "torchvision" in {name.split(".")[0] for name in imports(path)}]


@pytest.mark.parametrize("module", [name for name in sorted(MODULES) if not name.startswith("saadi.store")])
def test_only_the_store_speaks_sql(module: str) -> None:
    assert not [name for name in imports(MODULES[module]) if name.split(".")[0] in ("sqlite3", "pysqlite3", "sqlite_utils")]
    calls = {node.func.attr for node in ast.walk(ast.parse(MODULES[module].read_text()))
             if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)}
    assert not calls & {"execute", "executemany", "executescript"}


@pytest.mark.parametrize("module", [name for name in sorted(MODULES) if name != "saadi.config"])
def test_only_config_reads_the_environment(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text())
    allowed = set()
    for node in ast.walk(tree):  # setting a variable for a library that reads it on import is no reading
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            allowed.add(id(node.value))
        if isinstance(node, ast.Attribute) and node.attr == "setdefault":
            allowed.add(id(node.value))
    readings = [node.lineno for node in ast.walk(tree)
                if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv") and id(node) not in allowed]
    assert readings == []


@pytest.mark.parametrize("module", [name for name in sorted(MODULES) if name.startswith("saadi.") and name != "saadi.jobs"])
def test_no_error_is_swallowed(module: str) -> None:
    """`except Exception` only in the worker, or where the error goes on."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.ExceptHandler):
            is_broad = node.type is None or (isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException"))
            goes_on = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
            assert not is_broad or goes_on, f"{module}:{node.lineno}"


def test_the_package_itself_is_empty() -> None:
    assert (ROOT / "saadi/__init__.py").read_text().strip() == ""
