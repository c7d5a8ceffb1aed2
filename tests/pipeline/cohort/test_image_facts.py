"""What is known of each image, as words, worked out by hand on ten patients."""

from pipeline.cohort.image_facts import image_facts, labels_of, positions_in
from pipeline.recipe.labels import BinsSource, Labels, StudyGroupsSource
from tests.pipeline.cohort.test_label_report import GROUPS, tables, ten_patients


def test_labels_machine_source_and_side_of_each_image() -> None:
    pool, index, _, folders, settings, _ = tables(GROUPS, ten_patients())
    facts = image_facts(pool, index, folders, settings)
    assert list(facts) == ["study groups", "probe shape", "machine", "source", "split"]
    assert facts["study groups"] == ["liver"] * 24 + ["none"] * 5
    assert facts["probe shape"][19:22] == ["linear", "curvilinear", "linear"]
    assert len({*facts["machine"][:24]}) == 1 and facts["machine"][0].lower() == "philips epiq 7"
    assert facts["source"] == ["folder 2"] * 23 + ["folder 1"] * 6  # six patients, and four with most of the images
    assert facts["split"][22:25] == ["training", "validation", "training"]


def test_an_unknown_label_is_unknown_and_other_sources_are_called_by_their_field() -> None:
    bins = BinsSource(field="SliceThickness", edges=(2.0,), labels=("thin", "thick"))
    settings = Labels(sources=(StudyGroupsSource(groups=("liver", "nodule")), bins), missing="mask")
    rows = [{"patient": "a", "liver": 1, "thin": 1, "thick": 0}, {"patient": "b", "liver": 1, "nodule": 1}]
    pool, index, _, folders, _, _ = tables(settings, rows)
    facts = image_facts(pool, index, folders, settings)
    assert facts["study groups"] == ["unknown", "liver, nodule"] and facts["SliceThickness"] == ["thin", "unknown"]
    assert labels_of(pool, ["nodule"]) == ["unknown", "nodule"]


def test_images_are_found_by_instance_and_frame() -> None:
    pool = tables(GROUPS, ten_patients())[0]
    assert positions_in(pool.slice(2), pool.take([0, 5, 28])) == [None, 3, 26]
