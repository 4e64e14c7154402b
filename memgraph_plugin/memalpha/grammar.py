"""English turned round: contractions written out, "I sold my car" told as "The user sold their car". Pure."""

from __future__ import annotations

import re

from memgraph_plugin.memalpha.words import words

_CONTRACTIONS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(rf"\b(?:{short})\b", re.I), long)
    for short, long in (
        (r"(i)'?m", r"\1 am"),
        (r"(i)'?ve", r"\1 have"),
        (r"(i)'ll", r"\1 will"),
        (r"(i)'d", r"\1 would"),
        ("can't|cant|can not", "cannot"),
        ("won't", "will not"),
        ("ain't", "am not"),
        (r"(do|does|did|is|are|was|were|have|has|had|would|could|should)n'?t", r"\1 not"),
        (r"(it|that|he|she)'s (?=been|got)", r"\1 has "),
        (r"(it|that|he|she|there|name)'s", r"\1 is"),
        (r"(we|they|you)'re", r"\1 are"),
        (r"(we|they|you)'ve", r"\1 have"),
        ("have got|got (?=an? |two |three )", "have "),
    )
)
_FILLERS = re.compile(
    r"^(i|we)((?:\s+(?:am|have|do|can|will|was))?)\s+(?:(?:really|absolutely|totally|definitely|truly|currently|presently|"
    r"actually|already|also|still|even|just|now|simply|recently|finally|always|mostly|usually|kinda|kind of|"
    r"super|quite|only)\s+)+",
    re.I,
)
_PAST = frozenset(
    words(
        """went got had was were did made took saw met bought ate drank began broke brought built came caught
        chose cut dove drew drove fell felt flew forgot found gave grew heard held hit hung hurt kept knew
        led left lent lost paid put quit ran read rode rose sang sent set shot slept sold spent spoke stole
        stood swam taught thought threw told tore understood became woke wore won wrote hurt let sat lay
        said built bet bid split spread shut"""
    )
)
_AUXILIARY = frozenset(words("will would can could may might shall should must cannot never used"))
_IRREGULAR = {
    "am": "is",
    "have": "has",
    "do": "does",
    "go": "goes",
    "are": "is",
    "was": "was",
    "were": "were",
}
_FIRST = {"is": "am", "has": "have", "studies": "study"} | {
    f"{verb}s": verb
    for verb in words("live work like love hate enjoy prefer speak play own drive come dislike")
}
_ADVERB = frozenset(words("really also always usually often never just still finally recently"))
_PRONOUNS = {
    "my": "their",
    "mine": "theirs",
    "me": "them",
    "myself": "themself",
    "our": "their",
    "us": "them",
    "ours": "theirs",
    "ourselves": "themselves",
    "i": "they",
    "we": "they",
    "am": "are",
}
_PRONOUN = re.compile(r"\b(?:" + "|".join(_PRONOUNS) + r")\b", re.I)
_SUBJECT = re.compile(r"^(?P<who>i|we)\s+(?P<verb>[\w'-]+)(?P<rest>.*)$", re.I | re.S)


def written_out(clause: str) -> str:
    """The clause without contractions and without fillers before its verb."""
    for pattern, long in _CONTRACTIONS:
        clause = pattern.sub(long, clause)
    return _FILLERS.sub(r"\1\2 ", clause).strip()


def pronouns_turned(text: str) -> str:
    """The text with the speaker's own pronouns in the third person: "my car" is "their car"."""
    return _PRONOUN.sub(lambda match: _PRONOUNS[match.group().lower()], text)


def told_of(subject: str, clause: str) -> str:
    """A clause of the first person, told of `subject`: "I sold my car" -> "The user sold their car."""
    match = _SUBJECT.match(clause)
    if not match:
        mine = re.sub(r"^my\b", f"{subject}'s", clause, flags=re.I)
        return _sentence(pronouns_turned(mine))
    who = subject if match["who"].lower() == "i" else f"{subject}, with others,"
    verb, rest = match["verb"], match["rest"]
    if verb.lower() in _ADVERB:
        adverb, _, after = (verb + rest).partition(" ")
        verb, _, rest = after.partition(" ")
        verb, rest = f"{adverb} {third(verb)}", f" {rest}" if rest else ""
    else:
        verb = third(verb)
    return _sentence(f"{who} {verb}{pronouns_turned(rest)}")


def third(verb: str) -> str:
    """The verb in the third person singular; past forms and auxiliaries stay."""
    low = verb.lower()
    if low in _IRREGULAR:
        return _IRREGULAR[low]
    if low in _PAST or low in _AUXILIARY or low.endswith("ed"):
        return low
    if re.search(r"(?:s|sh|ch|x|z|o)$", low):
        return f"{low}es"
    return f"{low[:-1]}ies" if re.search(r"[^aeiou]y$", low) else f"{low}s"


def first_person(verb: str) -> str:
    """The verb of "my sister lives" as she would say it herself ("live"); "" where that is not known."""
    low = verb.lower()
    if low in _FIRST:
        return _FIRST[low]
    return low if is_past(low) else ""


def is_past(verb: str) -> bool:
    return verb.lower() in _PAST or verb.lower().endswith("ed")


def _sentence(text: str) -> str:
    text = re.sub(r"\s+([,.;])", r"\1", " ".join(text.split())).strip(" ,;.")
    return f"{text[:1].upper()}{text[1:]}." if text else ""
