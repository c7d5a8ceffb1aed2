"""Suggested groups of study descriptions: derived by hand from Table A1's groups, and their score on real ones."""

import csv
from pathlib import Path

import pytest

from pipeline.labels.description_meaning import CONCEPTS
from pipeline.labels.study_groups import StudyGroups, normalized, read_study_groups, shipped_study_groups
from pipeline.labels.study_terms import NEGATION, Term, Vocabulary, Word, shipped_terms
from pipeline.labels.suggestions import MOST, Suggester
from pipeline.recipe.labels import Labels
from tests.pipeline.archive.real import shared_data

GROUPS = Labels().groups
TERMS_ALONE = Suggester(StudyGroups({}), GROUPS)
REVIEWED = StudyGroups(
    {
        "US BIOPSY LIVER FOCAL": ("liver", "abdomen"),
        "US THYROID BIOPSY": ("thyroid", "nodule"),
        "US FETAL HEAD": (),
    }
)


def first(description, suggester=TERMS_ALONE):
    """The first suggestion's groups, None if there is no suggestion."""
    ranked = suggester.suggestions(normalized(description)).ranked
    return ranked[0].groups if ranked else None


LIVER, KIDNEY, SOFT, NODE = ("liver", "abdomen"), ("kidney", "abdomen"), ("soft tissue",), ("soft tissue", "nodule")


@pytest.mark.parametrize(
    ("description", "groups"),
    [
        # separators, order codes, sides
        ("us_kidney_left", KIDNEY),
        ("SPLEEN/US", ("abdomen",)),
        ("US GALLBLADDER=GB", ("abdomen",)),
        ("(US) Pancreas (S)", ("abdomen",)),
        ("USTHYLTD/118", ("thyroid",)),
        ("US-RENAL-BILAT.", KIDNEY),
        ("LT BREAST US", SOFT),
        # glued words
        ("usguidedbiopsykidney", ("kidney", "abdomen")),
        ("US BiopsyLymphNode", NODE),
        ("US_LAxillaryNode", NODE),
        ("img_uschestlimited", ("chest",)),
        # abbreviations, inflections, a wrong letter
        ("US BX THYROID RT", ("thyroid", "nodule")),
        ("US ABD CMPLT", ("abdomen",)),
        ("US EXTREM NONVASC LTD", SOFT),
        ("US RUQ", ("abdomen",)),
        ("US RETROPERITON COMP", ("abdomen",)),
        ("US KIDNEYES", KIDNEY),
        ("US THRYOID", ("thyroid",)),
        # procedures
        ("IR PARACENTESIS W US", ("abdomen", "drainage")),
        ("US GUIDED THORACENTESIS RT", ("chest", "drainage")),
        ("IR NEPHROSTOMY LEFT", ("kidney", "abdomen", "drainage")),
        ("US DRAIN PELVIC ABSCESS", ("abdomen", "drainage")),
        ("US FNA NECK MASS", NODE),
        ("US LIVER LESION BIOPSY", LIVER),
        # several organs, other words
        ("US LIVER AND KIDNEYS", ("liver", "kidney", "abdomen")),
        ("US ABDOMEN AND PELVIS", ("abdomen",)),
        ("US THYROID WITH COLOR DOPPLER", ("thyroid",)),
        ("US RENAL ARTERY DUPLEX", KIDNEY),
        ("US ABDOMEN WITHOUT LIVER", ("abdomen",)),
        ("US NON VASCULAR ARM", SOFT),
        ("US SOFT TISSUE NECK WITH DOPPLER", SOFT),
        ("US PELVIC LYMPH NODES", NODE),
        # CPT numbers
        ("76700", ("abdomen",)),
        ("US 76536", ("thyroid", "soft tissue")),
        ("US 76536 NECK", SOFT),
        # other languages, with and without accents
        ("Sonographie Nieren bds.", KIDNEY),
        ("Schilddrüsensonografie", ("thyroid",)),
        ("Ultraschall Leber/Galle", LIVER),
        ("Échographie hépatique", LIVER),
        ("ECHOGRAPHIE DES PARTIES MOLLES", SOFT),
        ("Ecografia tiroide", ("thyroid",)),
        ("Ecografía de tórax", ("chest",)),
        ("ECO HIGADO", LIVER),
        ("US DE RINS E VIAS URINÁRIAS", KIDNEY),
        ("Echo schildklier", ("thyroid",)),
        ("echo lymfeklieren hals", NODE),
    ],
)
def test_terms_suggest_the_groups_of_what_is_examined(description, groups):
    assert first(description) == groups


@pytest.mark.parametrize(
    "description",
    [
        # heart
        *("ECHO COMPLETE", "TTE LIMITED", "STRESS ECHO", "Echokardiographie", "ETT", "Ecocardiograma"),
        # vessels
        *("US VENOUS LOWER EXT", "CAROTID DUPLEX BILAT", "US DOPPLER ARM LEFT", "US ART LEG", "US AORTA DUPLEX"),
        *("PICC LINE US GUIDED", "US DIALYSIS ACCESS", "Écho-Doppler veineux des membres", "Sono Halsgefäße"),
        # pregnancy and pelvis
        *("US OB FIRST TRIMESTER", "FETAL ABDOMEN", "US PELVIS TRANSVAG", "US SCROTUM W DOPPLER", "US PROSTATE BX"),
        *("ECO PARA EMBARAZO", "US BLADDER", "Becken", "Ecografia pelvica"),
        # elsewhere, and nothing that could be told
        *("US HEAD NEONATAL", "US EYE", "US_BIOPSY", "US NEEDLE GUIDANCE", "US", "3D", "ZEBRA", "US NON OB PELVIS"),
    ],
)
def test_terms_suggest_nothing_for_exams_in_none_of_the_groups(description):
    assert first(description) is None


@pytest.mark.parametrize("description", ["", " ", "\x00", "1" * 64, "A" * 100_000, "US " * 10_000, "超音波", "USUSUS"])
def test_an_odd_description_gets_no_suggestion(description):
    assert TERMS_ALONE.suggestions(description).ranked == ()


def test_a_reason_names_the_words_and_what_they_stand_for():
    (found,) = TERMS_ALONE.suggestions("USABDLTD").ranked
    assert found.reason == "word ABD (abdomen)"
    found = TERMS_ALONE.suggestions("US LIVER AND THYROID").ranked
    assert [(suggestion.groups, suggestion.reason) for suggestion in found] == [
        (("liver", "thyroid", "abdomen"), "words LIVER, THYROID"),
        (("liver", "abdomen"), "word LIVER"),
        (("thyroid",), "word THYROID"),
    ]


def test_an_exam_in_no_group_says_why_nothing_is_suggested():
    assert TERMS_ALONE.suggestions("US LEG VENOUS").none_because == "word VENOUS (vein): an exam of vessels"
    assert TERMS_ALONE.suggestions("TTE").none_because == "word TTE (heart): an exam of the heart"
    assert TERMS_ALONE.suggestions("ZEBRA").none_because is None


@pytest.mark.parametrize(
    ("description", "like"),
    [
        ("us focal  biopsy liver", "US BIOPSY LIVER FOCAL"),  # the same words in another order
        ("US THYROYD BIOPSY", "US THYROID BIOPSY"),  # one letter of sixteen
        ("US FETAL HEAD 2ND TRIMESTER", "US FETAL HEAD"),
        ("US_BX_LIVER", "US BIOPSY LIVER FOCAL"),
    ],
)
def test_a_reviewed_description_of_the_same_meaning_comes_first(description, like):
    found = Suggester(REVIEWED, GROUPS).suggestions(normalized(description)).ranked[0]
    assert found.groups == REVIEWED.mapping[like]
    assert found.reason.startswith(f"like {like}, ")


def test_what_was_reviewed_wins_over_terms():
    reviewed = StudyGroups({"US LIVER": ("liver",), "US LIVER PORTABLE": ("liver",), "US LIVER STAT": ("nodule",)})
    found = Suggester(reviewed, GROUPS).suggestions("LIVER US LEFT").ranked
    assert [suggestion.groups for suggestion in found] == [("liver",), ("nodule",), ("liver", "abdomen")]
    assert found[0].reason == "like US LIVER and 1 more, 100"


def test_of_equally_similar_descriptions_the_first_by_name_is_suggested():
    reviewed = StudyGroups({"US THYROID RIGHT": ("nodule",), "US THYROID LEFT": ("thyroid",)})
    found = Suggester(reviewed, GROUPS).suggestions("US THYROID").ranked
    assert found[0].reason == "like US THYROID LEFT, 100"
    alike = StudyGroups({"US ZEBRA B": ("nodule",), "US ZEBRA A": ("nodule",)})
    (found,) = Suggester(alike, GROUPS).suggestions("US ZEBRA C").ranked
    assert found.reason == "like US ZEBRA A, 86"


def test_a_procedure_that_a_reviewed_description_adds_is_not_suggested():
    """ABDOMEN is in DRAINAGE ABDOMEN, but an exam of the abdomen is no drainage."""
    reviewed = StudyGroups({"US DRAINAGE ABDOMEN": ("abdomen", "drainage")})
    found = Suggester(reviewed, GROUPS).suggestions("US ABDOMEN COMPLETE").ranked
    assert [suggestion.groups for suggestion in found] == [("abdomen",)]


def test_a_biopsy_of_an_unnamed_organ_is_like_one_with_the_same_words_alone():
    reviewed = StudyGroups({"US BIOPSY NOT OTHERWISE SPECIFIED": ("soft tissue", "nodule")})
    assert first("US_Biopsy", Suggester(reviewed, GROUPS)) is None
    assert first("BIOPSY NOT OTHERWISE SPECIFIED", Suggester(reviewed, GROUPS)) == ("soft tissue", "nodule")


def test_groups_outside_the_label_space_are_not_suggested():
    suggester = Suggester(StudyGroups({}), ("Liver", "belly"))
    assert first("US LIVER", suggester) == ("Liver",)
    assert first("US KIDNEY", suggester) is None


def test_a_group_that_the_paper_lacks_is_suggested_by_reviewed_descriptions():
    reviewed = StudyGroups({"US LIVER BIOPSY": ("belly",), "TTE COMPLETE": ("heart",), "US SPLEEN": ("spleen",)})
    suggester = Suggester(reviewed, ("belly", "heart", "spleen"))
    assert first("US LIVER DOPPLER", suggester) == ("belly",)
    assert first("TRANSESOPHAGEAL ECHO", suggester) == ("heart",)
    assert first("US SPLEEN LIMITED", suggester) == ("spleen",)
    assert first("US GALLBLADDER", suggester) is None  # one concept with the spleen, but another organ


def test_words_that_the_list_lacks_are_compared_with_reviewed_ones():
    reviewed = StudyGroups({"USG JAMY BRZUSZNEJ": ("abdomen",)})
    assert first("USG JAMY BRZUSZNEJ Z OPISEM", Suggester(reviewed, GROUPS)) == ("abdomen",)
    assert first("USG TARCZYCY", Suggester(reviewed, GROUPS)) is None


def test_there_are_at_most_three_suggestions_with_different_groups():
    found = TERMS_ALONE.suggestions("US LIVER KIDNEY THYROID CHEST BREAST").ranked
    assert len(found) == MOST
    assert len({suggestion.groups for suggestion in found}) == MOST


def test_a_word_of_several_languages_is_read_in_that_of_the_others():
    words = Vocabulary([Term("LONG", "en", "qualifier"), Term("LONG", "nl", "chest"), Term("MET", "nl", "qualifier")])
    assert [word.concept for word in words.words("LONG AXIS")] == ["qualifier", None]
    assert [word.concept for word in words.words("long met")] == ["chest", "qualifier"]


def test_a_word_that_could_mean_two_concepts_is_not_completed():
    words = Vocabulary([Term("THORACIC", "en", "chest"), Term("THORACENTESIS", "en", "thoracentesis")])
    assert [word.concept for word in words.words("THORAC")] == [None]
    assert [word.concept for word in words.words("THORACI")] == ["chest"]


def test_each_term_has_one_concept_per_language_and_is_read_as_itself():
    terms = list(shipped_terms())
    assert len({(term.text, term.language) for term in terms}) == len(terms)
    assert {term.concept for term in terms} == CONCEPTS.keys() | {NEGATION}
    languages = {term.language for term in terms}
    of = {language: Vocabulary(term for term in terms if term.language == language) for language in languages}
    for term in terms:
        if term.concept != NEGATION:
            assert of[term.language].words(term.text) == (Word(term.text, term.concept),)


def overlap(rows, suggester):
    """Right ones and all, of the descriptions in groups (a group in common) and of those in none (no suggestion)."""
    in_groups = [(set(first(text, suggester) or ()), groups) for text, groups in rows if groups]
    in_none = [first(text, suggester) for text, groups in rows if not groups]
    return (
        (sum(bool(found & groups) for found, groups in in_groups), len(in_groups)),
        (sum(not found for found in in_none), len(in_none)),
    )


def test_most_rows_of_table_a1_are_suggested_from_the_other_rows():
    """Of 44 rows, 36 get the very groups that are printed; a word-by-word comparison got 23."""
    table = read_study_groups(shipped_study_groups(), GROUPS).mapping
    exact = 0
    for description, groups in table.items():
        others = StudyGroups({text: names for text, names in table.items() if text != description})
        exact += set(first(description, Suggester(others, GROUPS)) or ()) == set(groups)
    assert exact >= 36


def test_real_descriptions_of_other_hospitals_get_their_groups():
    path = shared_data() / "real_tags" / "descriptions.csv"
    if not path.is_file():
        pytest.skip(f"no {path}")
    with path.open(encoding="utf-8", newline="") as file:
        rows = [(row["study_description"], row["acceptable_groups"]) for row in csv.DictReader(file)]
    told = [(text, {name.strip() for name in groups.split(",") if name}) for text, groups in rows if groups != "?"]
    suggester = Suggester(read_study_groups(shipped_study_groups(), GROUPS), GROUPS)
    (right, of_groups), (without, of_none) = overlap(told, suggester)
    print(f"{right} of {of_groups} suggestions overlap; none for {without} of {of_none} in no group")
    assert right >= 0.85 * of_groups
    assert without == of_none


def test_exam_names_of_public_order_lists_get_their_group():
    """Names in six languages from order and price lists of hospitals, which were collected after the terms."""
    with (Path(__file__).parent / "exam_names.csv").open(encoding="utf-8", newline="") as file:
        rows = [(row["study_description"], {row["group"]} - {""}) for row in csv.DictReader(file)]
    (right, of_groups), (without, of_none) = overlap(rows, TERMS_ALONE)
    print(f"{right} of {of_groups} suggestions include the group; none for {without} of {of_none} in no group")
    assert (right, of_groups) == (88, 88)
    assert (without, of_none) == (80, 80)
