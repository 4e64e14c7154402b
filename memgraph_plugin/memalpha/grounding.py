"""Does a text stand on what was said? Its numbers, dates, addresses and names must be in it. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import date
from itertools import pairwise

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
    covered = [(turn.at.date(), turn.at.date()) for turn in evidence]
    covered += _days(
        time for turn in evidence for time in find_times(strip_memory_blocks(turn.text), turn.at)
    )
    if target:
        known = target.valid_from or moment
        covered += [(known.date(), known.date()), *_days(find_times(target.text, known))]
    missing = []
    spoken = spoken.casefold()
    for time in reversed(find_times(text, moment)):
        said = text[time.begin : time.end]
        is_quoted = _LEAD.sub("", said).casefold() in spoken
        if not is_quoted and not any(first <= time.last and time.first <= last for first, last in covered):
            missing.append(said)
        text = f"{text[: time.begin]} {text[time.end :]}"
    return text, missing[::-1]


def _days(times: Iterable[SaidTime]) -> list[tuple[date, date]]:
    return [(time.first, time.last) for time in times]


def _numbers(text: str) -> set[str]:
    numbers = {_plain(number) for number in _NUMBER.findall(text)}
    said = words(text)
    numbers |= {str(NUMBERS[word]) for word in said if word in NUMBERS}
    for tens, ones in pairwise(said):
        if NUMBERS.get(tens, 0) >= 20 and 1 <= NUMBERS.get(ones, 0) <= 9:
            numbers.add(str(NUMBERS[tens] + NUMBERS[ones]))
    return numbers


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
