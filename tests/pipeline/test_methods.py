"""A pretraining method is one file: registered there, it is in the recipe's schema, the assets and the tables."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.methods import METHODS, SHOWN_LABELS, Method
from pipeline.recipe.arms import PAPER_ARMS, encoder_of

ROOT = Path(__file__).parent.parent.parent

ROTATION = """
from pipeline.methods.method import Method, TrainingSettings, register


class RotationSettings(TrainingSettings):
    angles: int = 4


register(
    Method(
        name="rotation",
        label="Rot",
        description="trained to predict rotations",
        card="Trained to predict rotations.",
        trainer="pipeline.pretraining.rotation:RotationRun",
        settings=RotationSettings,
        labelled=True,
        controls=("shuffled",),
    )
)
"""
RECIPE = """
name: turned
pretraining:
  backbones: [resnet50]
  methods: [baseline, rotation]
  angles: 8
  variants:
    fewer: {method: rotation, angles: 2}
    mixed: {method: rotation, labels: shuffled}
downstream: {arms: [baseline, rotation, rotation_frozen, fewer, mixed]}
"""
ASSETS = """
import sys
from assets.definitions import defs
print([key.path[-1] for key in defs.resolve_asset_graph().get_all_asset_keys()])
print([name for name in ("torch", "pipeline.pretraining.rotation") if name in sys.modules])
"""
LOOK = """
from pathlib import Path
from pipeline.errors import UserError
from pipeline.evaluation.display_names import arm_label
from pipeline.recipe import load_recipe

recipe = load_recipe("turned.yaml")
print([recipe.pretraining.settings_of(name, 3).angles for name in ("rotation", "fewer", "mixed")])
print([arm_label(recipe, arm) for arm in recipe.downstream.arms])
variant = "variants: {{v: {{{}}}}}"
for wrong in ("angles: x", variant.format("method: rotation, labels: source"), variant.format("method: ce, angles: 2")):
    Path("wrong.yaml").write_text("name: a\\npretraining: {" + wrong + "}")
    try:
        load_recipe("wrong.yaml")
    except UserError as error:
        print(error)
"""


def run(folder: Path, code: str) -> list[str]:
    """The lines that `code` prints in a process of its own, started in `folder`."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "SONOTAG_RECIPE": "turned.yaml"}
    environment["SONOTAG_STORE"] = str(folder / "store")
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_method_is_added_by_one_file(tmp_path: Path) -> None:
    for folder in ("assets", "pipeline", "recipes", "resources"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "pipeline/methods/rotation.py").write_text(ROTATION, encoding="utf-8")
    (tmp_path / "turned.yaml").write_text(RECIPE, encoding="utf-8")
    assets, imported = run(tmp_path, ASSETS)
    assert all(f"'resnet50_{name}_encoder'" in assets for name in ("baseline", "rotation", "fewer", "mixed"))
    assert imported == "[]", "the graph loads without torch and without the method's trainer"
    settings, labels, angles, control, foreign = run(tmp_path, LOOK)
    assert settings == "[8, 2, 8]"
    assert labels == "['Baseline', 'Rot', 'Rot+F', 'Rot, angles 2', 'Rot, labels shuffled']"
    assert "wrong.yaml: pretraining.angles: " in angles
    assert "pretraining.variants.v: labels " in control
    assert "pretraining.variants.v: angles " in foreign


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_every_trainer_can_be_imported(method: Method) -> None:
    from pipeline.pretraining.job import MethodRun

    assert issubclass(method.load_trainer(), MethodRun)


def test_the_papers_methods_are_registered() -> None:
    assert {encoder_of(arm) for arm in PAPER_ARMS} <= set(METHODS)
    assert all(control in SHOWN_LABELS for method in METHODS.values() for control in method.controls)


def test_a_setting_of_a_method_is_passed_through_each_package_once() -> None:
    sources = [path for room in ("assets", "pipeline", "resources") for path in sorted((ROOT / room).rglob("*.py"))]
    named = [str(path.relative_to(ROOT)) for path in sources if "lambda_adv" in path.read_text(encoding="utf-8")]
    assert named == ["pipeline/methods/ce.py", "pipeline/pretraining/context_encoder.py"]


def test_the_name_of_a_curve_is_written_in_its_methods_file_and_where_its_meaning_is_defined() -> None:
    sources = [path for room in ("assets", "pipeline", "resources") for path in sorted((ROOT / room).rglob("*.py"))]
    for curve in ("train_adversarial_share", "train_saturation", "val_diversity", "val_mse"):
        named = [str(path.relative_to(ROOT)) for path in sources if f'"{curve}"' in path.read_text(encoding="utf-8")]
        assert named == ["pipeline/methods/ce.py", "pipeline/pretraining/curves.py"]


def test_no_other_file_lists_methods() -> None:
    """`ce_dcm` outside its own file: the paper's arms and its comparison, and examples in commands and descriptions."""
    listed = [path for path in (ROOT / "pipeline").rglob("*.py") if '"ce_dcm"' in path.read_text(encoding="utf-8")]
    names = sorted(str(path.relative_to(ROOT / "pipeline")) for path in listed)
    assert names == ["methods/ce_dcm.py", "recipe/arms.py", "recipe/evaluation.py"]
