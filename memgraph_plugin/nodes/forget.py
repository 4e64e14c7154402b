"""What "forget that" takes along, so that a forgotten thing does not come back through the verbatim turns.

Deleting the memory is not enough: the turns it was learnt from are remembered word for word. With it go
1. the turns that are its evidence, in any of its versions;
2. the assistant's reply to each of those;
3. among the `MOST_TURNS` nearest: a turn of the user's that says the same (all the words of the memory), and
   one of the assistant's that speaks of it (all its content words);
4. the words of the request itself: it is stored as `REQUEST_KEPT`, and the answer to it is not stored.
A message that asks not to be remembered itself ("don't remember this, but ...") is treated as such a request,
and nothing is decided on it. Where no memory is meant, turns are looked for by the words of the request, if
these are two or more.
What it does not do: find paraphrases, change a thread's own messages (they are the checkpointer's), or erase
the history, which keeps what is deleted; erasing a namespace does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from memgraph_plugin.errors import MemoryNotFound
from memgraph_plugin.memalpha.readings import unwanted_in
from memgraph_plugin.memalpha.sentences import is_off_the_record
from memgraph_plugin.memalpha.words import content_words, stem, words
from memgraph_plugin.nodes.scope import Scope
from memgraph_plugin.types import Delete, Hit, Memory, MemoryVersion, Operation, Turn

REQUEST_KEPT = "(The user asked for something to be forgotten; the words were not kept.)"
"""What is stored in place of a request to forget."""

MOST_TURNS = 50
"""Turns looked through for each thing that is forgotten."""

_FILLER = frozenset(
    "the user a an is are was has have in on at of to i my me we our that this it they their them".split()  # noqa: SIM905
)


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user asked to forget in one turn: a memory (`key`), or where none is meant, some `words`."""

    turn: str
    key: str | None = None
    words: str = ""


def is_private(turns: Iterable[Turn]) -> bool:
    """Whether the user asked that these very turns be not remembered."""
    return any(turn.role == "user" and is_off_the_record(turn.text) for turn in turns)


def wishes_in(turns: Sequence[Turn], operations: Iterable[Operation]) -> list[Wish]:
    """What was asked to be forgotten, as against what a policy deletes to tidy up."""
    said = {turn.key: unwanted_in(turn) for turn in turns if turn.role == "user"}
    deletes = [each for each in operations if isinstance(each, Delete)]
    meant = [
        Wish(each.evidence[0] if each.evidence else turns[0].key, key=each.key)
        for each in deletes
        if each.reason == "user_request" or any(said.get(key) for key in each.evidence)
    ]
    return meant or [
        Wish(key, words=what) for key, whats in said.items() for what in whats if len(content_words(what)) > 1
    ]


def turns_to_forget(scope: Scope, wishes: Sequence[Wish]) -> list[Delete]:
    """The deletions of turns that fulfil these wishes."""
    gone: dict[str, Delete] = {}
    for wish in wishes:
        versions = _history(scope, wish.key)
        evidence = [_history(scope, key) for key in _evidence_of(versions)]
        for text in _texts_of(versions) or [wish.words]:
            hits = scope.store.recall(scope.namespace, text, k=MOST_TURNS, kinds=("turn",))
            gone |= _deletions(wish, text, evidence, hits)
    return list(gone.values())


async def aturns_to_forget(scope: Scope, wishes: Sequence[Wish]) -> list[Delete]:
    """Async twin of `turns_to_forget`."""
    gone: dict[str, Delete] = {}
    for wish in wishes:
        versions = await _ahistory(scope, wish.key)
        evidence = [await _ahistory(scope, key) for key in _evidence_of(versions)]
        for text in _texts_of(versions) or [wish.words]:
            hits = await scope.store.arecall(scope.namespace, text, k=MOST_TURNS, kinds=("turn",))
            gone |= _deletions(wish, text, evidence, hits)
    return list(gone.values())


def _deletions(
    wish: Wish, text: str, evidence: Iterable[Sequence[MemoryVersion]], hits: Iterable[Hit]
) -> dict[str, Delete]:
    sources = [versions[-1].memory for versions in evidence if versions]
    turns = [turn for turn in sources if turn and turn.kind == "turn"]
    replies = {(turn.session, turn.position + 1) for turn in turns if turn.position is not None}
    turns += [
        turn
        for turn in (hit.memory for hit in hits)
        if _says(turn, text) or (turn.source == "assistant" and (turn.session, turn.position) in replies)
    ]
    return {turn.key: Delete(key=turn.key, evidence=(wish.turn,), reason="user_request") for turn in turns}


def _says(turn: Memory, text: str) -> bool:
    """Whether a turn says what the text says; the assistant's own words are given up more freely."""
    if turn.source == "assistant":
        meant = content_words(text)
    else:
        meant = frozenset(stem(word) for word in words(text) if word not in _FILLER)
    return bool(meant) and meant <= {stem(word) for word in words(turn.text)}


def _evidence_of(versions: Iterable[MemoryVersion]) -> list[str]:
    return list(dict.fromkeys(key for version in versions for key in version.evidence))


def _texts_of(versions: Iterable[MemoryVersion]) -> list[str]:
    texts = (version.memory.text for version in versions if version.memory)
    return list(dict.fromkeys(text for text in texts if text))


def _history(scope: Scope, key: str | None) -> list[MemoryVersion]:
    try:
        return scope.store.history(scope.namespace, key) if key else []
    except MemoryNotFound:
        return []


async def _ahistory(scope: Scope, key: str | None) -> list[MemoryVersion]:
    try:
        return await scope.store.ahistory(scope.namespace, key) if key else []
    except MemoryNotFound:
        return []
