"""Suggested groups for a study description that is not reviewed, each with its reason.

Suggestions come from reviewed descriptions that say the same, then from the terms of `study_terms`, then from reviewed
descriptions that look alike. They save typing; they are no review.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rapidfuzz import fuzz

from pipeline.labels.description_meaning import CONCEPTS, Meaning, meaning, names_exam
from pipeline.labels.review_cells import Groups
from pipeline.labels.study_groups import StudyGroups
from pipeline.labels.study_terms import Vocabulary, Word, shipped_vocabulary
from pipeline.recipe.labels import folded

MIN_TEXT_SIMILARITY = 65.0
"""Minimum similarity of a reviewed description, of 100."""
MIN_TEXT_SIMILARITY_WITHOUT_SUBJECT = 90.0
"""Minimum similarity of a reviewed description if neither names a subject, such as BIOPSY."""
MOST = 3
"""Suggestions per description."""
_MANY_ORGANS = frozenset({"abdomen", "soft tissue"})
"""Concepts that stand for organs which a recipe may tell apart, such as spleen and gallbladder."""


@dataclass(frozen=True)
class Suggestion:
    """Groups of the recipe's label space, and the reason; no groups: reviewed descriptions alike are in none."""

    groups: Groups
    reason: str


@dataclass(frozen=True)
class Suggestions:
    """At most MOST suggestions with different groups, the best first, and why there is none, if a word says so."""

    ranked: tuple[Suggestion, ...]
    none_because: str | None = None


@dataclass(frozen=True)
class _Read:
    """A description as read. Words are in alphabetical order."""

    description: str
    meaning: Meaning
    words: str
    """All but modality and side."""
    subject: str
    """Those of `words` that name an organ or an exam in no group, and those that the list of terms lacks."""


class Suggester:
    """Suggests groups of a label space from reviewed descriptions and terms.

    Terms suggest those of the paper's groups that are in `groups`, whatever the case; reviewed descriptions suggest
    any.
    """

    def __init__(self, reviewed: StudyGroups, groups: Groups, vocabulary: Vocabulary | None = None) -> None:
        self._vocabulary = vocabulary or shipped_vocabulary()
        self._spelt = {folded(name): name for name in groups}
        self._groups_of = reviewed.mapping
        self._reviewed = [self._read(description) for description in sorted(reviewed.mapping)]
        self._by_concepts: dict[frozenset[str], list[_Read]] = defaultdict(list)
        for read in self._reviewed:
            self._by_concepts[read.meaning.concepts].append(read)

    def suggestions(self, description: str) -> Suggestions:
        """Suggestions for `description`: of reviewed ones of the same meaning, of terms, of reviewed ones alike.

        If a word names an exam that is in none of the paper's groups (heart, vessels, pregnancy, pelvis, head), only
        reviewed descriptions of such an exam count.
        """
        read = self._read(description)
        ranked = list(self._of_same_meaning(read))
        if read.meaning.veto is None:
            ranked += [*self._of_terms(read.meaning), *self._alike(read)]
        ranked = ranked or list(self._of_same_subject(read))
        first: dict[Groups, Suggestion] = {}
        for suggestion in ranked:
            first.setdefault(suggestion.groups, suggestion)
        veto = None if ranked else read.meaning.veto
        none_because = f"{_named(read.meaning.words)}: {_IN_NO_GROUP[veto]}" if veto else None
        return Suggestions(tuple(first.values())[:MOST], none_because)

    def _read(self, description: str) -> _Read:
        words = self._vocabulary.words(description)
        compared = [word for word in words if word.concept not in ("modality", "side")]
        subject = [word for word in compared if word.concept is None or names_exam(word.concept)]
        return _Read(description, meaning(words), _joined(compared), _joined(subject))

    def _of_same_meaning(self, read: _Read) -> Iterator[Suggestion]:
        """The groups of reviewed descriptions with the same concepts and similar words."""
        concepts = read.meaning.concepts
        alike = [(_similarity(read, other), other) for other in self._by_concepts.get(concepts, ()) if concepts]
        return self._voted(read, [pair for pair in alike if pair[0] >= MIN_TEXT_SIMILARITY])

    def _of_same_subject(self, read: _Read) -> Iterator[Suggestion]:
        """The groups of reviewed descriptions of the same organ or exam; regions of many organs need similar words."""
        subject = read.meaning.subject
        least = MIN_TEXT_SIMILARITY if subject <= _MANY_ORGANS else 0
        same = [other for other in self._reviewed if subject and other.meaning.subject == subject]
        alike = [(fuzz.token_set_ratio(read.subject, other.subject), other) for other in same]
        return self._voted(read, [pair for pair in alike if pair[0] >= least])

    def _voted(self, read: _Read, reviewed: Sequence[tuple[float, _Read]]) -> Iterator[Suggestion]:
        """The groups of `reviewed`, each with its similarity: first those with the greatest sum of similarities.

        Of equal ones the first by name.
        """
        found: dict[Groups, list[tuple[float, float, str]]] = defaultdict(list)
        for similarity, other in reviewed:
            in_all = fuzz.token_sort_ratio(read.description, other.description)
            found[self._groups_of[other.description]].append((similarity, in_all, other.description))
        for groups, rows in sorted(found.items(), key=lambda pair: -sum(similarity for similarity, *_ in pair[1])):
            similarity, _, like = max(rows, key=lambda row: row[:2])
            more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
            yield Suggestion(groups, f"like {like}{more}, {similarity:.0f}")

    def _of_terms(self, meant: Meaning) -> Iterator[Suggestion]:
        """All groups that the terms imply, then those of each organ or procedure alone."""
        if groups := self._in_label_space(meant.groups):
            yield Suggestion(groups, _named(meant.words))
            for word in meant.words if len(meant.words) > 1 else ():
                if alone := self._in_label_space(CONCEPTS[word.concept].groups if word.concept else ()):
                    yield Suggestion(alone, _named([word]))

    def _alike(self, read: _Read) -> Iterator[Suggestion]:
        """The groups of reviewed descriptions with similar words that name no organ beyond those of `read`."""
        carriers = read.meaning.carriers
        others = [other for other in self._reviewed if other.subject and other.meaning.carriers <= carriers]
        alike = [(fuzz.token_sort_ratio(read.words, other.words), other) for other in others if not other.meaning.veto]
        found = [(-similarity, other.description) for similarity, other in alike if similarity >= MIN_TEXT_SIMILARITY]
        for similarity, like in sorted(found) if read.subject else ():
            yield Suggestion(self._groups_of[like], f"like {like}, {-similarity:.0f}")

    def _in_label_space(self, groups: Groups) -> Groups:
        return tuple(self._spelt[name] for name in groups if name in self._spelt)


_IN_NO_GROUP = {
    "heart": "an exam of the heart",
    "vessel": "an exam of vessels",
    "obstetrics": "an exam in pregnancy",
    "pelvis": "an exam of the pelvis",
    "other": "an exam of another region",
}


def _similarity(read: _Read, other: _Read) -> float:
    """Similarity of two descriptions with the same concepts, 0 to 100.

    If they name a subject, that of the subjects, 100 if one has all words of the other. Else all words have to agree
    nearly: BIOPSY alone is not BIOPSY NOT OTHERWISE SPECIFIED.
    """
    if read.subject and other.subject:
        return fuzz.token_set_ratio(read.subject, other.subject)
    return fuzz.token_sort_ratio(read.words, other.words, score_cutoff=MIN_TEXT_SIMILARITY_WITHOUT_SUBJECT)


def _joined(words: Sequence[Word]) -> str:
    return " ".join(sorted({word.text for word in words}))


def _named(words: Sequence[Word]) -> str:
    """`words` as a reason, each with its concept if it is written differently."""
    texts = [
        word.text if word.text == (word.concept or "").upper() else f"{word.text} ({word.concept})" for word in words
    ]
    return f"word{'s' if len(words) > 1 else ''} {', '.join(texts)}"
