"""What must a user have said before a memory may go? That it is unwanted, or is not so. Pure.

The words are of several languages; what is a question, or somebody else's, counts for nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from memgraph_plugin.memalpha.readings import unwanted_in
from memgraph_plugin.memalpha.sentences import own_clauses, own_sentences
from memgraph_plugin.memalpha.words import content_words, words
from memgraph_plugin.types import Turn

_FORGETTING = frozenset(
    words(
        """forget delete remove erase wipe vergiss vergessen lösche löschen oublie oubliez supprime efface
        olvida borra elimina esquece apaga dimentica cancella vergeet verwijder"""
    )
)
_WRONG = frozenset(words("wrong incorrect untrue falsch"))
_DENYING = frozenset(
    words(
        """not no never nor none cannot can't don't doesn't didn't isn't wasn't aren't weren't won't haven't
        hasn't dont doesnt didnt isnt wasnt longer anymore former formerly ex instead rather actually sorry
        mistake misspoke correction wrong incorrect untrue stopped quit left sold lost gave moved changed
        switched cancelled canceled divorced died now nicht kein keine keinen nie sondern mehr falsch ne pas
        plus jamais nunca ya não já mais non più mai niet geen nooit"""
    )
)
_EVERYTHING = re.compile(
    r"\b(?:everything|anything|every\s+memory|alles|todo|tout|tudo|tutto)\b|\ball\b(?!\s+about)", re.I
)
_KEEP = re.compile(
    r"""(?:\b(?:not|never|nothing|cannot|no|não|non|nicht|niet|i|we)|n['’]?t)\s+(?:\w+\s+){0,2}?
    (?:forget|delete|remove|erase|wipe|wrong|incorrect|untrue|olvida|borra|elimina|esquece|apaga|dimentica|cancella)\b|
    \b(?:vergiss|vergeet)\s+(?:\w+\s+)?(?:nicht|niet)\b""",
    re.I | re.X,
)
"""What the words of forgetting do not ask for: "do not forget", "I always forget", "nothing is wrong"."""

_ASKS = re.compile(
    r"^(?:who|whom|whose|what|when|where|why|how|which|do|does|did|is|are|am|was|were|have|has|had|should|shall)\b",
    re.I,
)
"""Begins a question that is no wish, as "could you forget ...?" is."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What users asked to forget or said to be wrong, and the words of what they said is not so (any more).

    Args:
        asked: whether anything was to go, named or only pointed at ("forget that", "that is wrong").
        named: the words with which it was asked.
        everything: whether all was to go at once.
        denied: the words of the clauses that deny, correct or change something.
    """

    asked: bool
    named: frozenset[str]
    everything: bool
    denied: frozenset[str]


@lru_cache(maxsize=32)  # each deletion of a batch asks it of the same turns
def wishes(turns: tuple[Turn, ...]) -> Wishes:
    """The wishes in the users' own words."""
    wanted: list[str] = []
    denied: list[str] = []
    for turn in turns:
        if turn.role == "user":
            wanted += [*_asked(turn.text), *unwanted_in(turn)]
            denied += [each for each in own_clauses(turn.text) if _DENYING & _said(each)]
    said = "\n".join(wanted)
    return Wishes(
        bool(wanted), content_words(said), bool(_EVERYTHING.search(said)), content_words("\n".join(denied))
    )


def _asked(text: str) -> list[str]:
    """The sentences with a wish, and what is listed after one ("forget these: ...")."""
    asked: list[str] = []
    for sentence in own_sentences(text):
        is_question = sentence.endswith("?")
        said = _said(sentence)
        wants = _FORGETTING & said and not (is_question and _ASKS.match(sentence))
        if wants or (_WRONG & said and not is_question) or (asked and asked[-1].endswith(":")):
            asked.append(f"{sentence}:" if asked and asked[-1].endswith(":") else sentence)
    return asked


def _said(sentence: str) -> set[str]:
    """Its words, without the wish to keep something."""
    return set(words(_KEEP.sub(" ", sentence)))
