"""What the words of a study description mean together: groups of the paper, or an exam that is in none of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.labels.review_cells import Groups
from pipeline.labels.study_terms import Word

Kind = Literal["organ", "procedure", "lesion", "vessel", "mode", "heart", "obstetrics", "pelvis", "other", "none"]


@dataclass(frozen=True)
class Concept:
    """What a word names, and the paper's groups that it implies."""

    kind: Kind
    groups: Groups = ()


CONCEPTS: Mapping[str, Concept] = {
    "liver": Concept("organ", ("liver", "abdomen")),
    "kidney": Concept("organ", ("kidney", "abdomen")),
    "thyroid": Concept("organ", ("thyroid",)),
    "abdomen": Concept("organ", ("abdomen",)),
    "aorta": Concept("organ", ("abdomen",)),
    "mesentery": Concept("organ", ("abdomen", "soft tissue")),
    "chest": Concept("organ", ("chest",)),
    "lymph node": Concept("organ", ("soft tissue", "nodule")),
    "soft tissue": Concept("organ", ("soft tissue",)),
    "nonvascular": Concept("organ", ("soft tissue",)),
    "breast": Concept("organ", ("soft tissue",)),
    "neck": Concept("organ", ("soft tissue",)),
    "limb": Concept("organ", ("soft tissue",)),
    "nodule": Concept("organ", ("nodule",)),
    "thyroid or neck": Concept("organ", ("thyroid", "soft tissue")),
    "drainage": Concept("procedure", ("drainage",)),
    "paracentesis": Concept("procedure", ("abdomen", "drainage")),
    "thoracentesis": Concept("procedure", ("chest", "drainage")),
    "nephrostomy": Concept("procedure", ("kidney", "abdomen", "drainage")),
    "pseudoaneurysm": Concept("procedure", ("soft tissue", "nodule")),
    "biopsy": Concept("procedure"),
    "guidance": Concept("procedure"),
    "lesion": Concept("lesion"),
    **{name: Concept("vessel") for name in ("vessel", "vein", "artery", "carotid", "vascular access")},
    **{name: Concept("mode") for name in ("doppler", "duplex")},
    **{name: Concept("heart") for name in ("heart", "echo")},
    "obstetrics": Concept("obstetrics"),
    **{name: Concept("pelvis") for name in ("pelvis", "bladder", "gynaecology", "prostate", "scrotum")},
    **{name: Concept("other") for name in ("head", "eye", "bone")},
    **{name: Concept("none") for name in ("modality", "side", "qualifier")},
}
"""The concepts of `study_terms.csv` except negation. The groups follow Table A1, which counts livers and kidneys among
the abdomen and lymph nodes among soft tissue and nodules."""

_INNER = frozenset({"liver", "kidney", "thyroid", "abdomen"})
"""Organs that remain the subject of an exam of their vessels."""
_OF_VESSELS_IN_DOPPLER = frozenset({"limb", "neck", "aorta"})
"""Regions whose exam is one of vessels if it is in Doppler and names no other organ."""
_OUTER = frozenset({"chest", "lymph node", "soft tissue", "breast"})
"""Organs that remain the subject of an exam in Doppler, and beside the pelvis."""
_ORDER = ("liver", "kidney", "thyroid", "abdomen", "chest", "soft tissue", "nodule", "drainage")
_NODULAR = frozenset({"thyroid", "soft tissue"})
"""Groups in which a biopsy or a lesion is a nodule (Table A1)."""


@dataclass(frozen=True)
class Meaning:
    """The paper's groups of a description; none if it names no organ or if `veto` names an exam in no group.

    `concepts` are those that tell exams apart, `words` those that name them.
    """

    groups: Groups
    veto: str | None
    concepts: frozenset[str]
    words: tuple[Word, ...]

    @property
    def carriers(self) -> frozenset[str]:
        """The concepts that imply groups."""
        return _with_groups(self.concepts)

    @property
    def subject(self) -> frozenset[str]:
        """The concepts that tell what is examined."""
        return frozenset(filter(names_exam, self.concepts))


def names_exam(concept: str) -> bool:
    """Whether the concept tells what is examined: it implies groups, or an exam that is in none."""
    kind = CONCEPTS[concept].kind
    return bool(CONCEPTS[concept].groups) or kind not in ("procedure", "lesion", "mode", "none")


def meaning(words: Sequence[Word]) -> Meaning:
    """The meaning of the words of a description."""
    named = _without_needless_numbers([word for word in words if _kind(word) != "none"])
    concepts = _without_needless_concepts(frozenset(word.concept for word in named if word.concept))
    veto = _veto(concepts)
    carriers = _with_groups(concepts)
    if veto is None:
        return Meaning(_groups(concepts), None, concepts, _words_of(named, carriers or concepts))
    vetoing = frozenset(name for name in concepts if CONCEPTS[name].kind == veto)
    duplex = concepts & {"doppler", "duplex"}
    return Meaning((), veto, vetoing | carriers, _words_of(named, vetoing or duplex))


def _kind(word: Word) -> Kind:
    return CONCEPTS[word.concept].kind if word.concept else "none"


def _with_groups(concepts: frozenset[str]) -> frozenset[str]:
    return frozenset(name for name in concepts if CONCEPTS[name].groups)


def _words_of(words: Sequence[Word], concepts: frozenset[str]) -> tuple[Word, ...]:
    return tuple(dict.fromkeys(word for word in words if word.concept in concepts))


def _without_needless_numbers(words: Sequence[Word]) -> Sequence[Word]:
    """`words` without CPT numbers if others name an organ or an exam in no group."""
    others = [word for word in words if not word.text.isdigit()]
    return others if any(word.concept and names_exam(word.concept) for word in others) else words


def _without_needless_concepts(concepts: frozenset[str]) -> frozenset[str]:
    """`concepts` without needles, which every procedure has, and without ECHO if it means ultrasound of an organ."""
    others = concepts - {"echo"}
    if any(map(names_exam, others)):
        concepts = others
    return concepts - {"guidance"} or concepts


def _veto(concepts: frozenset[str]) -> Kind | None:
    """The kind of an exam that is in none of the paper's groups, None if the words name no such exam."""
    kinds = {CONCEPTS[name].kind for name in concepts}
    carriers = _with_groups(concepts)
    if "obstetrics" in kinds:
        return "obstetrics"
    if any(CONCEPTS[name].kind == "procedure" for name in carriers):
        return None
    if "heart" in kinds:
        return "heart"
    if _of_vessels(concepts) and not concepts & _INNER and "nonvascular" not in concepts:
        return "vessel"
    if "pelvis" in kinds and not concepts & (_INNER | _OUTER):
        return "pelvis"
    return "other" if "other" in kinds and not carriers else None


def _of_vessels(concepts: frozenset[str]) -> bool:
    if "duplex" in concepts or any(CONCEPTS[name].kind == "vessel" for name in concepts):
        return True
    return "doppler" in concepts and bool(concepts & _OF_VESSELS_IN_DOPPLER) and not concepts & _OUTER


def _groups(concepts: frozenset[str]) -> Groups:
    """The union of the groups of all concepts, with those that follow from a biopsy or drainage of a region."""
    groups = {group for name in concepts for group in CONCEPTS[name].groups}
    if groups & _NODULAR and concepts & {"biopsy", "lesion"}:
        groups.add("nodule")
    if "drainage" in concepts and any(CONCEPTS[name].kind == "pelvis" for name in concepts):
        groups.add("abdomen")
    return tuple(sorted(groups, key=_ORDER.index))
