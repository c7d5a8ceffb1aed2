"""What the environment variables mean, and their defaults."""

from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.recipe import shipped_recipes
from resources.environment import read_environment


def test_defaults_are_the_phantom_the_demo_and_table_a1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    environment = read_environment({})
    assert environment.store.root == tmp_path / "store"
    assert environment.archive == str(tmp_path / "store" / "phantom" / "archive")
    assert environment.recipes[0].name == "demo"
    assert environment.study_groups.name == "study_groups.csv"
    assert environment.tracking_uri == f"sqlite:///{tmp_path}/store/mlflow/mlflow.db"
    assert environment.recipes[0].downstream.tasks["thyroid"].manifest == str(
        tmp_path / "store" / "phantom" / "downstream" / "thyroid.csv"
    )


def test_every_variable_overrides_its_default(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("name: mine\n")
    environment = read_environment(
        {
            "SONOTAG_STORE": str(tmp_path / "s"),
            "SONOTAG_ARCHIVE": str(tmp_path / "a"),
            "SONOTAG_RECIPE": str(recipe),
            "SONOTAG_STUDY_GROUPS": str(tmp_path / "g.csv"),
            "MLFLOW_TRACKING_URI": "http://127.0.0.1:5000",
        }
    )
    assert environment.recipes[0].name == "mine"
    assert environment.archive == str(tmp_path / "a")
    assert environment.study_groups == tmp_path / "g.csv"
    assert environment.tracking_uri == "http://127.0.0.1:5000"


def test_no_shipped_recipe_publishes_rare_descriptions(tmp_path: Path) -> None:
    """Whether an archive is the phantom decides that, however the recipe is named."""
    for name, path in shipped_recipes().items():
        for named in (name, str(path)):
            recipe = read_environment({"SONOTAG_STORE": str(tmp_path), "SONOTAG_RECIPE": named}).recipes[0]
            assert recipe.archive.description_patients >= 5


def test_an_archive_may_be_a_url(tmp_path: Path) -> None:
    variables = {"SONOTAG_STORE": str(tmp_path / "s")}
    assert read_environment(variables | {"SONOTAG_ARCHIVE": "s3://bucket/scans"}).archive == "s3://bucket/scans"
    assert read_environment(variables | {"SONOTAG_ARCHIVE": f"file://{tmp_path}"}).archive == str(tmp_path)
    with pytest.raises(UserError, match="nosuch"):
        read_environment(variables | {"SONOTAG_ARCHIVE": "nosuch://bucket/scans"})


def test_an_unknown_recipe_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        read_environment({"SONOTAG_STORE": str(tmp_path), "SONOTAG_RECIPE": "nowhere"})
