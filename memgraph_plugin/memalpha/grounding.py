"""Does a text stand on what was said? Its numbers, dates, addresses and names must be in it. Pure."""

from __future__ import annotations

import calendar
import re
import unicodedata
from collections.abc import Iterable, Sequence

from memgraph_plugin.memalpha.times import MONTHS, NUMBERS, WEEKDAYS, SaidTime, aware, find_times
from memgraph_plugin.memalpha.words import stem, words
from memgraph_plugin.prompts import strip_memory_blocks
from memgraph_plugin.types import Memory, Turn

_ADDRESS = re.compile(r"(?:https?://|www\.)[^\s<>\"']+|[\w.+-]+@[\w-]+(?:\.[\w-]+)+", re.I)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_NAME = re.compile(r"(?<![\w'’])[^\W\d_][\w'’-]*")
_BEGINS = re.compile(r"(?:^|[.!?:]\s+|\n)\s*$")
_LEAD = re.compile(r"^(?:on|in|since|back in)\s+(?:the\s+)?", re.I)
_FREE = frozenset(
    words(
        """user users i the a an on in at since their they it he she this that these those has is was likes
        loves enjoys prefers dislikes hates lives works wants plans owns speaks plays studies has moved
        started stopped and or but when after before every each there no not"""
    )
)
_TIME_WORDS = frozenset(MONTHS) | frozenset(WEEKDAYS)
_TENS, _ONES, _ANY = (
    "|".join(word for word, number in NUMBERS.items() if number in some)
    for some in (range(20, 100), range(1, 10), range(100))
)
_SPELLED = re.compile(
    rf"\b(?:({_TENS})[\s-]+({_ONES})|({_ANY}))\b(?![\s-]+(?:hundred|thousand|million|billion|dozen)\b)"
)
_YEAR = re.compile(r"\b\d{4}\b")
_INFERRED = frozenset({"0", "1", "2"})
"""Numbers that are written as words without having been said: one of them, both, nobody."""


def atoms(text: str) -> frozenset[str]:
    """What tells two sentences of the same words apart: addresses, numbers and names, each in one form."""
    addresses = {match.group().rstrip(".,;:!?)").casefold() for match in _ADDRESS.finditer(text)}
    text = _ADDRESS.sub(" ", unicodedata.normalize("NFKC", text))
    names = {stem(word) for name in _names(text) for word in words(name)}
    return frozenset(addresses | _numbers(text) | names)


def ungrounded(text: str, evidence: Sequence[Turn], target: Memory | None) -> list[str]:
    """What the text says that neither evidence nor target say, in order; empty where all is grounded."""
    said = [strip_memory_blocks(turn.text) for turn in evidence] + ([target.text] if target else [])
    spoken = unicodedata.normalize("NFKC", "\n".join(said))
    text = unicodedata.normalize("NFKC", text)
    speakers = {word for turn in evidence if turn.speaker for word in words(turn.speaker)}
    missing: list[str] = []

    addresses = [match.group().rstrip(".,;:!?)") for match in _ADDRESS.finditer(text)]
    missing += [address for address in addresses if address.casefold() not in spoken.casefold()]
    text = _ADDRESS.sub(" ", text)

    text, wrong_dates = _check_dates(text, spoken, evidence, target)
    missing += wrong_dates
    known_numbers = _numbers(spoken)
    missing += [number for number in _NUMBER.findall(text) if _plain(number) not in known_numbers]
    missing += sorted(_in_words(text) - known_numbers - _INFERRED)

    known = set(words(spoken)) | speakers | {stem(word) for word in words(spoken)}
    missing += [name for name in _names(text) if not _is_known(name, known)]
    return missing


def _check_dates(
    text: str, spoken: str, evidence: Sequence[Turn], target: Memory | None
) -> tuple[str, list[str]]:
    """The text without its dates, and those of them that nothing in the evidence covers."""
    moment = max((turn.at for turn in evidence), key=aware, default=target.valid_from if target else None)
    if moment is None:
        return text, []
    heard = [(strip_memory_blocks(turn.text), turn.at) for turn in evidence]
    if target:
        heard.append((target.text, target.valid_from or moment))
    days = {at.date() for _, at in heard}
    times = [(time, text[time.begin : time.end]) for text, at in heard for time in find_times(text, at)]
    missing = []
    spoken = spoken.casefold()
    details = _numbers(spoken) | set(words(spoken))
    for time in reversed(find_times(text, moment)):
        said = text[time.begin : time.end]
        is_known = (
            _LEAD.sub("", said).casefold() in spoken
            or any(time.first <= day <= time.last for day in days)
            or any(_covers(other, phrase, time, details) for other, phrase in times)
        )
        if not is_known:
            missing.append(said)
        text = f"{text[: time.begin]} {text[time.end :]}"
    return text, missing[::-1]


def _covers(said: SaidTime, phrase: str, time: SaidTime, details: set[str]) -> bool:
    """Whether they meet. Who named a month or a year has said no day in it; its first day may date it."""
    if said.last < time.first or time.last < said.first:
        return False
    detail = str(time.first.day) if time.unit == "day" else calendar.month_name[time.first.month].lower()
    return time.first <= said.first or detail in details or not _YEAR.search(phrase)


def _numbers(text: str) -> set[str]:
    return {_plain(number) for number in _NUMBER.findall(text)} | _in_words(text)


def _in_words(text: str) -> set[str]:
    """Numbers up to 99 that are spelled out, in digits."""
    found = (match.groups() for match in _SPELLED.finditer(text.casefold()))
    return {str(NUMBERS[word] if word else NUMBERS[tens] + NUMBERS[ones]) for tens, ones, word in found}


def _plain(number: str) -> str:
    return re.sub(r"[,](?=\d{3}\b)", "", number).rstrip(".,").lstrip("0") or "0"


def _names(text: str) -> Iterable[str]:
    """The capitalised words: names, as a rule; a common verb at the beginning of a sentence is none."""
    for match in _NAME.finditer(text):
        word = match.group()
        if word[0].isupper() and words(word):
            low = words(word)[0]
            if low in ("user", "i") or (low in _FREE and _BEGINS.search(text[: match.start()])):
                continue
            yield word


def _is_known(name: str, known: set[str]) -> bool:
    parts = words(name.replace("-", " "))
    return all(part in known or stem(part) in known or part in _TIME_WORDS & known for part in parts)
