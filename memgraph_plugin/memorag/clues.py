"""Clues: when and how they are drafted, how a model's reply is read, and what of it is worth a search.

Qian et al., MemoRAG (arXiv 2409.05591). Departs from it: scenarios beside QA and summaries, and a filter
that counts letters where a script has no spaces (MemoRAG's asks for four words between spaces, and so drops
nearly every Chinese clue). Pure; no I/O.
"""

from __future__ import annotations

import json
import re
import tomllib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from itertools import chain, zip_longest
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from memgraph_plugin.errors import ModelReplyError
from memgraph_plugin.memorag.prompts import DRAFT_TASK, ENTITY_TASK
from memgraph_plugin.types import Clue, ClueKind, MemoryKind

Scenario: TypeAlias = Literal["vague", "multi_hop", "aggregation", "personal", "conversation"]
"""vague: it does not say what it needs · multi_hop: one thing by way of another · aggregation: all of
something · personal: what suits the one who asks · conversation: it leans on what was said before."""

Language: TypeAlias = Literal["en", "zh", "ja", "ko"]

KINDS: tuple[ClueKind, ...] = ("span", "question", "entity")
"""What is drafted where nobody says otherwise; "draft", an answer from memory, is the fourth."""

SLOTS: Mapping[str, ClueKind] = MappingProxyType(
    {"spans": "span", "questions": "question", "entities": "entity", "time": "entity", "draft": "draft"}
)
"""The lists of a reply, and what is in them."""

MOST_READ = 20_000
"""Characters of a reply that are read, at most."""

LONGEST = 400
"""Characters of a clue that are searched with, at most."""

MOST_NAMES = 8
"""Names and dates, at most: they are searched together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a scenario is searched.

    Args:
        limit: clues at most, spans and questions together.
        depth: hits of each search that count. MemoRAG's is 3; two find as much where clues help, and push out
            less of what the question found where they do not.
        kept: of each clue, so many of its hits stay, whatever the other searches say.
        rounds: times that clues are drafted at most, each in view of what those before have found.
        spread: prefer hits from places that nothing was taken of yet, and as many as the budget holds.
        recent: prefer what is new and of the same session.
        kinds: memories that are searched for besides, with the question as it stands.
    """

    limit: int = 8
    depth: int = 2
    kept: int = 0
    rounds: int = 1
    spread: bool = False
    recent: bool = False
    kinds: tuple[MemoryKind, ...] = ()


PLANS: Mapping[Scenario, Plan] = MappingProxyType(
    {
        "vague": Plan(),
        "multi_hop": Plan(kept=1, rounds=2),
        "aggregation": Plan(limit=16, spread=True),
        "personal": Plan(kinds=("core", "semantic")),
        "conversation": Plan(recent=True),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a drafter is asked. `turns` are the last of the conversation, `found` what is retrieved so far.

    `nearest` is the cosine of the best that the question itself found, where vectors were compared.
    """

    query: str
    scenario: Scenario
    limit: int = 8
    round: int = 1
    turns: tuple[str, ...] = ()
    found: tuple[str, ...] = ()
    nearest: float | None = None
    now: datetime | None = None

    def finds(self, near: float | None) -> bool:
        """Whether the question itself found something of this cosine; None asks for nothing."""
        return near is not None and self.nearest is not None and self.nearest >= near


@runtime_checkable
class ClueDrafter(Protocol):
    """Who drafts clues. What it gives is tidied afterwards (`tidy`); if it raises, a turn has no clues."""

    @property
    def name(self) -> str: ...

    def draft(self, ask: Ask) -> list[Clue]: ...

    async def adraft(self, ask: Ask) -> list[Clue]: ...


@dataclass(frozen=True, slots=True)
class Example:
    """A question and its clues: small models do not understand the task without."""

    query: str
    spans: tuple[str, ...]
    questions: tuple[str, ...]
    entities: tuple[str, ...]
    draft: tuple[str, ...]
    turns: tuple[str, ...] = ()

    def of(self, kind: ClueKind) -> tuple[str, ...]:
        by_kind: dict[ClueKind, tuple[str, ...]] = {
            "span": self.spans,
            "question": self.questions,
            "entity": self.entities,
            "draft": self.draft,
        }
        return by_kind[kind]

    @property
    def texts(self) -> tuple[str, ...]:
        return (*self.spans, *self.questions, *self.entities, *self.draft)


def task(scenario: Scenario, kind: ClueKind) -> str:
    """What is asked for, in a sentence or two; the same in all scenarios for names and for a draft."""
    common = {"entity": ENTITY_TASK, "draft": DRAFT_TASK}
    return common.get(kind) or str(_scenarios()[scenario][kind])


def example(scenario: Scenario, query: str) -> Example:
    """The scenario's example in the language of the question; in English where there is none."""
    told = _scenarios()[scenario]
    fields = told.get(language(query), told["en"])
    lists = {name: tuple(lines) for name, lines in fields.items() if name != "query"}
    return Example(query=fields["query"], **lists)


@cache
def _scenarios() -> dict[str, dict[str, Any]]:
    return tomllib.loads(Path(__file__).with_name("scenarios.toml").read_text("utf-8"))


def schema(kinds: Sequence[ClueKind], limit: int) -> dict[str, Any]:
    """The JSON schema of a reply, {"spans": [...], "questions": [...], "entities": [...], "time": [...]}."""
    slots = [slot for slot, kind in SLOTS.items() if kind in kinds]
    listed = {slot: 1 if slot == "draft" else limit for slot in slots}
    return {
        "title": "search_clues",
        "description": "Clues to search with.",
        "type": "object",
        "properties": {
            slot: {"type": "array", "items": {"type": "string"}, "maxItems": most}
            for slot, most in listed.items()
        },
        "required": slots,
        "additionalProperties": False,
    }


def read_json(reply: str) -> list[Clue]:
    """The clues of a reply that has a JSON object with one of the lists in it, whatever stands around it.

    Raises:
        ModelReplyError: there is no such object, or it is not whole.
    """
    decoder, text = json.JSONDecoder(), reply[:MOST_READ]
    start = text.find("{")
    while start >= 0:
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):  # nested without end
            end = start + 1
        else:
            if isinstance(value, dict) and SLOTS.keys() & value.keys():
                return read_slots(value)
        start = text.find("{", end)
    raise ModelReplyError("the reply has no JSON object with clues", reply)


def read_slots(value: Mapping[str, Any]) -> list[Clue]:
    """The clues of a reply's lists; what is no text is passed over."""
    clues = []
    for slot, kind in SLOTS.items():
        items = value.get(slot) or []
        for item in items if isinstance(items, list) else [items]:
            clues += [Clue(kind, str(item))] if isinstance(item, str | int) else []
    return clues


def read_text(reply: str, kind: ClueKind) -> list[Clue]:
    """The clues of any reply: of JSON, of half a JSON, else each line is one of `kind`."""
    try:
        return read_json(reply)
    except ModelReplyError:
        reply = reply[:MOST_READ]
        slots = list(_SLOT.finditer(reply))
    if not slots:
        return [Clue(kind, line) for line in reply.splitlines() if line.strip()]
    ends = [*(match.start() for match in slots[1:]), len(reply)]
    return [
        Clue(SLOTS[match[1]], json.loads(f'"{text}"', strict=False))
        for match, end in zip(slots, ends, strict=True)
        for text in _STRING.findall(reply, match.end(), end)
    ]


_SLOT = re.compile(rf'"({"|".join(SLOTS)})"\s*:')
_STRING = re.compile(r'"((?:[^"\\]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*)"')


def tidy(clues: Iterable[Clue], *, unlike: Sequence[str] = (), limit: int = 8) -> list[Clue]:
    """The clues that are worth a search, at most `limit` spans and questions, taken in turn.

    Numbers and quotation marks around them are taken off. What is too short to find anything goes (under four
    words; under six letters where the script has no spaces; names and dates may be short), and so does what
    says the same as another clue or as one of `unlike`: the same words but for a fifth of them.
    """
    seen = [_words(text) for text in unlike]
    kept: dict[ClueKind, list[Clue]] = {}
    for clue in clues:
        text = _bare(clue.text)
        words = _words(text)
        if (
            not words
            or (clue.kind != "entity" and _too_short(text))
            or any(_same(words, said) for said in seen)
        ):
            continue
        seen.append(words)
        kept.setdefault(clue.kind, []).append(Clue(clue.kind, text))
    names, drafts = kept.pop("entity", []), kept.pop("draft", [])
    in_turn = [clue for clue in chain.from_iterable(zip_longest(*kept.values())) if clue]
    return [*in_turn[:limit], *names[:MOST_NAMES], *drafts[:1]]


def language(text: str) -> Language:
    """What a text is written in, by its script: kana is Japanese; what is mostly Latin, or unknown, "en"."""
    letters = sum(map(str.isalpha, text))
    if len(_CJK.findall(text)) * 4 < letters or not _CJK.search(text):
        return "en"
    if _KANA.search(text):
        return "ja"
    return "ko" if _HANGUL.search(text) else "zh"


_KANA = re.compile("[\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f]")
_HANGUL = re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7af]")
_CJK = re.compile(
    "[\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f\u1100-\u11ff\u3130-\u318f\uac00-\ud7af"
    "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
_NUMBERED = re.compile(
    r"""\s*(?: [-*+•·‣▪–—>\#]+(?!\d) | \(?\d{1,2}[.):、．：](?!\d) | （\d{1,2}） | [①-⑳]
    | [一二三四五六七八九十]{1,3}[、．.]
    | (?:question|clue|span|query|passage|answer|問題|问题|質問|线索|線索|手がかり|問い|q)\s*\d{0,2}\s*[.:：)]
    )\s*""",
    re.IGNORECASE | re.VERBOSE,
)
_QUOTES = " \t\"'`*_“”‘’«»「」『』《》,，"


def _bare(text: str) -> str:
    """A line without what stands around a clue (its number, quotation marks) and what no store can search."""
    text = " ".join(text.replace("\0", " ").encode("utf-8", "ignore").decode().split())
    while match := _NUMBERED.match(text.lstrip(_QUOTES)):
        text = text.lstrip(_QUOTES)[match.end() :]
    return text.strip(_QUOTES)[:LONGEST]


def _too_short(text: str) -> bool:
    if _CJK.search(text):
        return sum(map(str.isalnum, text)) < 6
    return len(text.split()) < 4


def _words(text: str) -> frozenset[str]:
    """The words of a text, and the pairs of letters where there are no spaces between words."""
    found: list[str] = []
    for word in re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()):
        pairs = [word[i : i + 2] for i in range(len(word) - 1)]
        found += (pairs or [word]) if _CJK.search(word) else [word]
    return frozenset(found)


def _same(words: frozenset[str], others: frozenset[str]) -> bool:
    return len(words & others) > 0.8 * len(words | others)
