"""What the environment variables mean, and their defaults."""

from pathlib import Path

import pytest

from pipeline.errors import UserError
from resources.environment import read_environment


def test_defaults_are_the_phantom_the_demo_and_table_a1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    environment = read_environment({})
    assert environment.store.root == tmp_path / "store"
    assert environment.archive == str(tmp_path / "store" / "phantom" / "archive")
    assert environment.recipe.name == "demo"
    assert environment.study_groups.name == "study_groups.csv"
    assert environment.tracking_uri == f"sqlite:///{tmp_path}/store/mlflow/mlflow.db"
    assert environment.recipe.downstream.tasks["thyroid"].manifest == str(
        tmp_path / "store" / "phantom" / "downstream" / "thyroid.csv"
    )


def test_every_variable_is_taken(tmp_path: Path) -> None:
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
    assert environment.recipe.name == "mine"
    assert environment.archive == str(tmp_path / "a")
    assert environment.study_groups == tmp_path / "g.csv"
    assert environment.tracking_uri == "http://127.0.0.1:5000"


@pytest.mark.parametrize(
    ("named", "patients"),
    [
        ({}, 1),
        ({"SONOTAG_RECIPE": "demo"}, 1),
        ({"SONOTAG_ARCHIVE": "/data"}, 5),
        ({"SONOTAG_RECIPE": "demo", "SONOTAG_ARCHIVE": "/data"}, 5),
        ({"SONOTAG_ARCHIVE": "/data", "OWN": "1"}, 1),
    ],
)
def test_the_demo_shows_every_description_of_the_phantom_and_of_no_other_archive(
    tmp_path: Path, named: dict[str, str], patients: int
) -> None:
    own = tmp_path / "mine.yaml"
    own.write_text("name: mine\narchive: {description_patients: 1}\n")  # whoever writes that means it
    variables = {"SONOTAG_STORE": str(tmp_path), **({"SONOTAG_RECIPE": str(own)} if "OWN" in named else {}), **named}
    assert read_environment(variables).recipe.archive.description_patients == patients


def test_an_archive_may_be_a_url(tmp_path: Path) -> None:
    variables = {"SONOTAG_STORE": str(tmp_path / "s")}
    assert read_environment(variables | {"SONOTAG_ARCHIVE": "s3://bucket/scans"}).archive == "s3://bucket/scans"
    assert read_environment(variables | {"SONOTAG_ARCHIVE": f"file://{tmp_path}"}).archive == str(tmp_path)
    with pytest.raises(UserError, match="nosuch"):
        read_environment(variables | {"SONOTAG_ARCHIVE": "nosuch://bucket/scans"})


def test_an_unknown_recipe_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No recipe 'nowhere'"):
        read_environment({"SONOTAG_STORE": str(tmp_path), "SONOTAG_RECIPE": "nowhere"})
