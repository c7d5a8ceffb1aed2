"""Layers: what each package may import, and which libraries loading the definitions imports."""

import ast
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TRAINING_FLOOR = ("images", "networks", "training", "representation", "pretraining", "downstream")
TRAINING_IMPORTS = {"numpy", "torch", "torchvision", "pyarrow", "safetensors", "pydantic", "yaml", "tqdm", "pipeline"}
ROOMS = (
    *("pages", "dicom", "images", "labels", "cohort", "privacy", "archive", "tasks", "training", "networks"),
    *("representation", "pretraining", "downstream", "prediction", "evaluation", "frozen", "embeddings", "phantom"),
)
"""Rooms of pipeline/, lowest first: none imports a later one. Everything else in pipeline/ is below all of them."""
BASE_PACKAGES = {"methods", "recipe"}
ROOMS_OF = {
    "pydicom": {"dicom", "phantom", "prediction", "privacy", "tasks", "archive"},
    "highdicom": {"prediction"},
    "defusedxml": {"tasks"},
    "onnx": {"frozen", "pretraining", "privacy"},
    "onnxruntime": {"frozen"},
    "rapidfuzz": {"labels"},
    "PIL": {"dicom", "archive", "cohort", "phantom", "evaluation", "tasks"},
    "pandas": {"evaluation", "labels"},
    "sklearn": {"cohort", "embeddings", "evaluation", "frozen", "labels"},
    "scipy": {"dicom", "cohort", "evaluation", "frozen", "labels"},
    "matplotlib": {"evaluation"},
    "jinja2": {"evaluation", "pages"},
}


@cache
def import_statements(path: Path) -> tuple[ast.Import | ast.ImportFrom, ...]:
    """The file's import statements, at the top or inside a function."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return tuple(node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom))


def imported_by(path: Path) -> set[str]:
    """Full names of the modules that the file imports anywhere in it."""
    names: set[str] = set()
    for node in import_statements(path):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif node.module:
            names.add(node.module)
    return names


def top_level(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


@pytest.mark.parametrize("path", sources("pipeline"), ids=lambda path: str(path.relative_to(ROOT)))
def test_pipeline_imports_no_orchestrator_and_no_tracking(path: Path) -> None:
    assert not top_level(imported_by(path)) & {"dagster", "mlflow", "assets", "resources"}


def test_resources_do_not_import_assets() -> None:
    for path in sources("resources"):
        assert "assets" not in top_level(imported_by(path)), path


@pytest.mark.parametrize("room", TRAINING_FLOOR)
def test_training_packages_import_few_libraries(room: str) -> None:
    for path in sources(f"pipeline/{room}"):
        strangers = top_level(imported_by(path)) - TRAINING_IMPORTS - set(sys.stdlib_module_names)
        assert not strangers, f"{path} imports {strangers}"


@pytest.mark.parametrize("room", TRAINING_FLOOR)
def test_training_packages_import_no_other_packages(room: str) -> None:
    names = ("archive", "cohort", "dicom", "evaluation", "labels", "phantom", "prediction", "privacy", "tasks")
    others = {f"pipeline.{name}" for name in names}
    for path in sources(f"pipeline/{room}"):
        assert not {".".join(name.split(".")[:2]) for name in imported_by(path)} & others, path


def pipeline_imports() -> dict[str, set[str]]:
    """For each module of pipeline/, the modules of pipeline/ that it imports, at the top or inside a function."""
    paths = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in sources("pipeline")}
    found = {}
    for module, path in paths.items():
        names = imported_by(path)
        nodes = (node for node in import_statements(path) if isinstance(node, ast.ImportFrom))
        names |= {f"{node.module}.{alias.name}" for node in nodes for alias in node.names}
        names |= {f"{name}.__init__" for name in names}
        found[module] = {name for name in names if name in paths} - {module}
    return found


def room_of(module: str) -> int:
    """Position in ROOMS, -1 for the base."""
    first = module.split(".")[1]
    return ROOMS.index(first) if first in ROOMS else -1


def test_every_package_of_pipeline_has_a_layer() -> None:
    packages = {path.name for path in (ROOT / "pipeline").iterdir() if (path / "__init__.py").is_file()}
    assert packages - BASE_PACKAGES == set(ROOMS)


def test_no_package_imports_a_higher_one() -> None:
    imports = pipeline_imports()
    upwards = [(module, name) for module in imports for name in imports[module] if room_of(name) > room_of(module)]
    assert not upwards


def test_no_modules_import_each_other_in_a_circle() -> None:
    left = pipeline_imports()
    while settled := {module for module, imports in left.items() if not imports & set(left)}:
        left = {module: imports for module, imports in left.items() if module not in settled}
    assert not left, f"a circle is among {sorted(left)}"


@pytest.mark.parametrize("library", ROOMS_OF)
def test_a_library_is_imported_only_by_its_packages(library: str) -> None:
    for path in sources("pipeline"):
        if library in top_level(imported_by(path)):
            assert path.relative_to(ROOT / "pipeline").parts[0] in ROOMS_OF[library], path


def test_every_module_has_a_docstring() -> None:
    for path in sources("assets", "resources", "pipeline", "recipes", "benchmarks"):
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path


def test_nothing_is_unpickled() -> None:
    for path in sources("assets", "resources", "pipeline"):
        assert not top_level(imported_by(path)) & {"pickle", "cloudpickle", "joblib", "shelve", "marshal"}, path
        assert "torch.load(" not in path.read_text(encoding="utf-8"), path


def test_loading_the_definitions_imports_no_heavy_library(tmp_path: Path) -> None:
    heavy = ("torch", "torchvision", "mlflow", "scipy", "sklearn", "matplotlib", "pandas", "onnx", "pydicom", "fsspec")
    probe = f"import sys, assets.definitions; print([m for m in {heavy} if m in sys.modules])"
    environment = {**os.environ, "SONOTAG_STORE": str(tmp_path), "SONOTAG_RECIPE": "paper"}
    done = subprocess.run(
        [sys.executable, "-c", probe], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_every_package_is_named_for_the_wheel() -> None:
    named = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for init in sources("assets", "resources", "pipeline", "recipes"):
        if init.name == "__init__.py":
            package = ".".join(init.parent.relative_to(ROOT).parts)
            assert f'"{package}",' in named, package
