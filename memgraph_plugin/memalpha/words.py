"""Words compared: when are two texts the same, and how much of one is in the other. Pure; English first."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_SUFFIX = re.compile(r"(?<=\w{3})(?:ies|ing|ed|es|s|y|e)$")


@lru_cache(maxsize=2048)  # each memory that is shown is compared several times a turn
def normalise(text: str) -> str:
    """The text without case, punctuation and odd spaces: equal where two texts say the same words."""
    return " ".join(words(text))


def words(text: str) -> list[str]:
    """The words of a text, case folded, without punctuation and a closing 's."""
    folded = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
    return [match.group().removesuffix("'s") for match in _WORD.finditer(folded)]


_SMALL = frozenset(
    words(
        """a an the and or but if then so of to in on at by for from with about into over after before as than
        that this these those there here it its he she him her his hers they them their theirs we us our i
        me my mine you your user users is am are was were be been being do does did done have has had having
        will would can could should shall may might must not no nor never ever now very too also just still
        really some any all much many more most what which who whom whose when where why how like likes love
        loves enjoys prefers dislikes hates lives works goes went wants plans called named"""
    )
)


def stem(word: str) -> str:
    """A crude English stem: enough for "hikes", "hiking" and "hiked" to meet."""
    return _SUFFIX.sub("", word)


def content_words(text: str) -> frozenset[str]:
    """The stems of the words that carry meaning: no articles, pronouns, auxiliaries."""
    return frozenset(stem(word) for word in words(text) if word not in _SMALL)


def share(part: Iterable[str], whole: frozenset[str]) -> float:
    """How much of `part` is in `whole`, 0..1; 0 where `part` is empty."""
    wanted = set(part)
    return len(wanted & whole) / len(wanted) if wanted else 0.0


def overlap(a: str, b: str) -> float:
    """The share of the shorter text's content words that the other has too, 0..1."""
    short, long = sorted((content_words(a), content_words(b)), key=len)
    return share(short, long)
