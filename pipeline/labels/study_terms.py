"""Words of study descriptions: which concept each one names, such as an organ, a procedure or a side.

The terms are in `study_terms.csv`: words in seven languages and CPT numbers, each with a concept and a source. No
radiologist has reviewed them, so they serve for suggestions only (`suggestions`).
"""

import csv
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from rapidfuzz.distance import OSA

ENGLISH = "en"
NEGATION = "negation"

_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]{2})")
_WITHOUT = re.compile(r"\bW/O\b")
_TOKEN = re.compile(r"[^\W\d_]+|\d+")
_SHORT_PIECES = frozenset({"US", "CT", "IR", "OB", "BX", "LT", "RT", "TV"})
"""Words of two letters that occur glued to others."""
_LONGEST = 64
"""Characters of a study description (PS3.5, value representation LO)."""
_MODALITIES = ("US", "IR", "CT")
"""Prefixes of order codes, such as USABDLCON."""


@dataclass(frozen=True)
class Term:
    """A word or phrase in upper case without accents, and the concept that it names in a language.

    `source` is the document that has the word, or "general vocabulary".
    """

    text: str
    language: str
    concept: str
    source: str = ""


@dataclass(frozen=True)
class Word:
    """A word or phrase of a description as it stands there, in upper case without accents; None: an unknown word."""

    text: str
    concept: str | None


class Vocabulary:
    """Terms, and how a description is read with them."""

    def __init__(self, terms: Iterable[Term]) -> None:
        self._readings: dict[str, list[Term]] = {}
        for term in terms:
            self._readings.setdefault(term.text, []).append(term)
        self._words = frozenset(word for text in self._readings for word in text.split())
        self._longest = max((text.count(" ") + 1 for text in self._readings), default=1)
        self._single = sorted(text for text in self._readings if text.isalpha())
        self._pieces = frozenset(filter(self._may_be_glued, self._single))

    def words(self, description: str) -> tuple[Word, ...]:
        """The words and phrases of `description` in their order, without those that a negation excludes.

        Glued words are cut, abbreviations and words with one wrong letter are read as the term that they resemble, and
        numbers that are not CPT numbers are dropped. A term that languages share is read in the language of the other
        words.
        """
        phrases = self._phrases([part for token in _tokens(description) for part in self._parts(token)])
        languages = Counter(term.language for _, text in phrases for term in self._readings.get(text, ()))
        read = [Word(shown, self._concept(text, languages)) for shown, text in phrases]
        return tuple(_without_negated(read))

    def _concept(self, text: str, languages: Mapping[str, int]) -> str | None:
        readings = self._readings.get(text, ())
        ranked = sorted(readings, key=lambda term: (-languages[term.language], term.language != ENGLISH))
        return ranked[0].concept if ranked else None

    def _phrases(self, parts: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """`parts` (as shown, as listed) with those joined that form a phrase of the list, the longest first."""
        found, start = [], 0
        while start < len(parts):
            for end in range(min(len(parts), start + self._longest), start, -1):
                listed = " ".join(text for _, text in parts[start:end])
                if listed in self._readings or end == start + 1:
                    found.append((" ".join(shown for shown, _ in parts[start:end]), listed))
                    start = end
                    break
        return found

    def _parts(self, token: str) -> list[tuple[str, str]]:
        """The listed words in `token`, each as shown and as listed; `token` itself if it contains none."""
        if token in self._words:
            return [(token, token)]
        if token.isdigit():
            return []
        pieces = self._cut(token) or self._order_code(token) or self._one_sided(token)
        if pieces:
            return [(piece, piece) for piece in pieces]
        return [(token, self._resembled(token) or token)]

    def _may_be_glued(self, text: str) -> bool:
        english = any(term.language == ENGLISH for term in self._readings[text])
        return len(text) > 3 or (len(text) == 3 and english) or text in _SHORT_PIECES

    def _cut(self, token: str) -> list[str] | None:
        """`token` as the fewest pieces, None if it does not consist of pieces or is longer than a description."""
        best: dict[int, list[str]] = {0: []}
        for start in range(len(token) if len(token) <= _LONGEST else 0):
            for end in range(start + 2, len(token) + 1) if start in best else ():
                if token[start:end] in self._pieces and len(best[start]) + 1 < len(best.get(end, token)):
                    best[end] = [*best[start], token[start:end]]
        return best.get(len(token))

    def _order_code(self, token: str) -> list[str] | None:
        """A modality and the longest term that follows it, such as US and ABD of USABDLCON; the rest is ignored."""
        modality = next((prefix for prefix in _MODALITIES if token.startswith(prefix)), None)
        if modality is None:
            return None
        rest = token[len(modality) :]
        beginnings = [piece for piece in self._pieces if len(piece) > 2 and rest.startswith(piece)]
        found = max(beginnings, key=len) if beginnings else self._resembled(rest)
        return [modality, found] if found else None

    def _one_sided(self, token: str) -> list[str] | None:
        """The terms after an initial L or R, such as CERVICAL and NODE of RCERVICALNODE."""
        rest = token[1:]
        if token[0] not in "LR" or len(rest) < 5:
            return None
        return [rest] if rest in self._pieces else self._cut(rest)

    def _resembled(self, token: str) -> str | None:
        """The term that `token` abbreviates, inflects or misspells by one letter; None if several concepts fit."""
        ways = (self._abbreviated, self._inflected, self._misspelt)
        return next((found for way in ways if (found := self._of_one_concept(way(token)))), None)

    def _abbreviated(self, token: str) -> list[str]:
        return [text for text in self._single if text.startswith(token)] if len(token) > 4 else []

    def _inflected(self, token: str) -> list[str]:
        stems = (token[:-letters] for letters in (1, 2, 3))
        return [stem for stem in stems if len(stem) > 5 and stem in self._pieces]

    def _misspelt(self, token: str) -> list[str]:
        as_long = [text for text in self._single if abs(len(text) - len(token)) < 2] if len(token) > 5 else []
        return [text for text in as_long if OSA.distance(token, text, score_cutoff=1) == 1]

    def _of_one_concept(self, texts: Sequence[str]) -> str | None:
        concepts = {term.concept for text in texts for term in self._readings[text]}
        return max(texts, key=len) if len(concepts) == 1 else None


@cache
def shipped_vocabulary() -> Vocabulary:
    """The terms of `study_terms.csv`."""
    return Vocabulary(shipped_terms())


def shipped_terms() -> Iterator[Term]:
    """The rows of `study_terms.csv`."""
    text = (files("pipeline.labels") / "study_terms.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(text.splitlines()):
        yield Term(row["term"], row["language"], row["concept"], row["source"])


def _tokens(description: str) -> list[str]:
    """Runs of letters and of digits, in upper case without accents."""
    plain = unicodedata.normalize("NFKD", _CAMEL.sub(" ", description))
    upper = "".join(sign for sign in plain if not unicodedata.combining(sign)).upper()
    return _TOKEN.findall(_WITHOUT.sub("WITHOUT", upper))


def _without_negated(words: Iterable[Word]) -> Iterator[Word]:
    """`words` without negations, and each without the word that follows it."""
    negated = False
    for word in words:
        if word.concept != NEGATION and not negated:
            yield word
        negated = word.concept == NEGATION
