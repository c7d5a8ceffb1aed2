"""The command: it embeds, and prints the neighbours of an image."""

import pytest

from pipeline.embeddings import __main__ as command
from pipeline.embeddings.table import embed_recipe
from pipeline.progress import silent
from tests.pipeline.embeddings.conftest import PATIENTS, Made

IMAGE = "f_0000000000000003:0"


@pytest.fixture(autouse=True)
def environment(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command works on the store that was made up."""
    monkeypatch.setattr(command, "recipe_and_store", lambda: (made.recipe, made.store))
    monkeypatch.setattr(command, "read_pool", lambda store, recipe: made.found.pool)
    monkeypatch.setattr(command.DICOM_INDEX.__class__, "read", read_of(made))


def read_of(made: Made):  # type: ignore[no-untyped-def]
    original = command.EMBEDDINGS.__class__.read
    tables = {"dicom_index": made.found.index, "images": made.found.images}
    return lambda self, *where: tables[self.name] if self.name in tables else original(self, *where)


def test_it_embeds_and_prints_the_path_of_the_page(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([]) == 0
    path = made.store.private_of("small") / "embeddings.html"
    assert capsys.readouterr().out == f"{path}\n" and path.is_file()


def test_the_neighbours_of_an_image_are_printed_with_patient_and_labels(
    made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    embed_recipe(made.recipe, made.store, made.found.pool, silent)
    assert command.main(["neighbours", IMAGE, "--encoder", "resnet50_ce_seed-0"]) == 0
    rows = [
        [cell.strip(" `") for cell in line.strip("|\n").split("|")] for line in capsys.readouterr().out.splitlines()
    ]
    image, *found = rows[2:]
    assert image[2:] == ["1.000", "the image", "liver, linear"]
    for row in found:
        number = int(row[1].removeprefix("f_").split(":")[0], 16)
        assert (row[3] == "same") == (number % PATIENTS == 3)
        assert row[4] == ("unknown" if number == 0 else "liver, linear" if number % 2 else "kidney, linear")
    assert [row[3] for row in found] == ["other"] * 8 + ["same"] * 2
    similarities = [float(row[2]) for row in found[:8]]
    assert similarities == sorted(similarities, reverse=True)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [(["neighbours", "f_1:0"], "'f_1:0'"), (["neighbours", IMAGE, "--encoder", "vgg"], "--encoder vgg")],
)
def test_what_is_not_embedded_is_one_sentence(
    made: Made, arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    embed_recipe(made.recipe, made.store, made.found.pool, silent)
    assert command.main(arguments) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and named in error


def test_before_the_job_the_job_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["neighbours", IMAGE]) == 1
    assert "`evaluate`" in capsys.readouterr().err
