"""What gets installed: pinned, checked against hashes, and nothing on a user's machine that only tests need."""

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
FOR_USERS, FOR_DEVELOPERS = ROOT / "requirements.txt", ROOT / "constraints.txt"
SHA256 = re.compile(r"--hash=sha256:([0-9a-f]{64})(?![0-9a-f])")


def pins(path: Path) -> dict[str, tuple[str, frozenset[str]]]:
    """Version and hashes by canonical name."""
    found = {}
    for line in path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        requirement = Requirement(line.split("--hash")[0])
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", line
        found[canonicalize_name(requirement.name)] = (specifier.version, frozenset(SHA256.findall(line)))
    return found


def declared(*extras: str) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    return {canonicalize_name(Requirement(line).name) for line in lines}


@pytest.mark.parametrize("path", [FOR_USERS, FOR_DEVELOPERS], ids=lambda path: path.name)
def test_every_package_is_pinned_with_a_hash(path: Path) -> None:
    found = pins(path)
    assert len(found) > 100
    assert [name for name, (_, hashes) in found.items() if not hashes] == []


def test_a_users_machine_gets_no_package_of_the_tests() -> None:
    users = set(pins(FOR_USERS))
    only_for_tests = declared("dev") - declared("s3", "postgres") - {"markdown-it-py"}  # rich, MLflow's, needs it too
    assert {"moto", "playwright", "pytest"} <= only_for_tests
    assert not users & only_for_tests


def test_both_lists_hold_what_pyproject_declares_at_the_same_versions() -> None:
    users, developers = pins(FOR_USERS), pins(FOR_DEVELOPERS)
    assert declared("s3", "postgres") <= set(users)
    assert declared("dev") <= set(developers)
    assert {name: developers.get(name) for name in users} == users


def test_the_environment_under_test_is_the_one_that_is_pinned() -> None:
    developers = pins(FOR_DEVELOPERS)
    installed = {name: version(name) for name in declared("dev", "s3", "postgres")}
    assert installed == {name: developers[name][0] for name in installed}


@pytest.mark.parametrize(
    ("target", "list_of_packages"), [("install", "requirements.txt"), ("install-dev", "constraints.txt")]
)
def test_make_installs_from_hashes_alone_and_builds_nothing(target: str, list_of_packages: str) -> None:
    done = subprocess.run(
        ["make", "--dry-run", "--always-make", target], cwd=ROOT, capture_output=True, text=True, check=True
    )
    installs = [line for line in done.stdout.splitlines() if "pip install" in line]
    assert any(list_of_packages in line for line in installs)
    for line in installs:
        assert "--require-hashes --only-binary :all:" in line or "--no-deps --no-build-isolation --editable ." in line


@pytest.mark.integration
def test_the_bill_of_materials_names_every_pin(tmp_path: Path) -> None:
    written = tmp_path / "sbom.json"
    command = ["cyclonedx_py", "requirements", "--pyproject", str(ROOT / "pyproject.toml"), "-o", str(written)]
    subprocess.run([sys.executable, "-m", *command, str(FOR_USERS)], check=True, capture_output=True)
    components = json.loads(written.read_text(encoding="utf-8"))["components"]
    named = {canonicalize_name(component["name"]): component["version"] for component in components}
    assert named == {name: pinned for name, (pinned, _) in pins(FOR_USERS).items()}
