"""What "forget that" takes along, so that a forgotten thing does not come back through the verbatim turns.

Deleting the memory is not enough: the turns it was learnt from are remembered word for word. With it go
1. the turns that are its evidence, in any of its versions;
2. the assistant's reply to each of those;
3. among the `MOST_TURNS` nearest: a turn of the user's that says the same (all the words of the memory), and
   one of the assistant's that speaks of it (all its content words);
4. the words of the request itself: it is stored as `REQUEST_KEPT`, and the answer to it is not stored;
5. what waits in quarantine and comes from one of these turns, or says the same.
Of a summary of several events, the one that the request is nearest to by its words is meant; the others are
remembered one by one again. Where no word tells, all go.
A message that asks not to be remembered itself ("don't remember this, but ...") is treated as such a request,
and nothing is decided on it. Where no memory is meant, turns are looked for by the words of the request, if
these are two or more.
What it does not do: find paraphrases, change a thread's own messages (they are the checkpointer's), or erase
the history, which keeps what is deleted; erasing a namespace does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from memgraph_plugin.memalpha.consolidate import SUMMARY
from memgraph_plugin.memalpha.readings import unwanted_in
from memgraph_plugin.memalpha.sameness import about
from memgraph_plugin.memalpha.sentences import is_off_the_record
from memgraph_plugin.memalpha.words import content_words, stem, words
from memgraph_plugin.nodes.scope import Scope, ahistory, history
from memgraph_plugin.types import Delete, Held, Hit, Insert, Memory, MemoryVersion, Operation, Turn

REQUEST_KEPT = "(The user asked for something to be forgotten; the words were not kept.)"
"""What is stored in place of a request to forget."""

MOST_TURNS = 50
"""Turns looked through for each thing that is forgotten."""

_FILLER = frozenset(
    "the user a an is are was has have in on at of to i my me we our that this it they their them".split()  # noqa: SIM905
)


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user asked to forget in one turn: a memory (`key`), or where none is meant, what `words` say.

    Beside a memory, `words` tell which of its events is meant, where it stands for several.
    """

    turn: str
    key: str | None = None
    words: str = ""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What goes along with what was asked to be forgotten.

    Args:
        wishes: what was asked.
        turns: the deletions of turns.
        held: the ids of what goes from quarantine.
        kept: the other events of a summary that goes, as memories of their own again.
        summaries: the keys of these summaries.
    """

    wishes: tuple[Wish, ...] = ()
    turns: tuple[Delete, ...] = ()
    held: tuple[str, ...] = ()
    kept: tuple[Insert, ...] = ()
    summaries: tuple[str, ...] = ()


def is_private(turns: Iterable[Turn]) -> bool:
    """Whether the user asked that these very turns be not remembered."""
    return any(turn.role == "user" and is_off_the_record(turn.text) for turn in turns)


def wishes_in(turns: Sequence[Turn], operations: Iterable[Operation]) -> list[Wish]:
    """What was asked to be forgotten, as against what a policy deletes to tidy up."""
    said = {turn.key: unwanted_in(turn) for turn in turns if turn.role == "user"}
    texts = {turn.key: turn.text for turn in turns}
    deletes = [each for each in operations if isinstance(each, Delete)]
    meant = []
    for each in deletes:
        if each.reason == "user_request" or any(said.get(key) for key in each.evidence):
            turn = each.evidence[0] if each.evidence else turns[0].key
            meant.append(Wish(turn, each.key, " ".join(said.get(turn, ())) or texts.get(turn, "")))
    return meant or [
        Wish(key, words=what) for key, whats in said.items() for what in whats if len(content_words(what)) > 1
    ]


def to_forget(scope: Scope, wishes: Sequence[Wish]) -> Forgotten:
    """What fulfils these wishes, beside the deletions of the memories that are meant."""
    parts = []
    for wish in wishes:
        versions = history(scope, wish.key)
        events = {key: history(scope, key) for key in _events_of(versions)}
        meant, kept = _told_apart(wish, versions, events)
        evidence = [history(scope, key) for key in _evidence_of(meant)]
        texts = _texts_of(meant) if wish.key else [wish.words]
        hits = [
            scope.store.recall(scope.namespace, text, k=MOST_TURNS, kinds=("turn",)) for text in texts if text
        ]
        parts.append((wish, _deletions(wish, texts, evidence, hits), texts, kept))
    return _forgotten(parts, scope.store.quarantined(scope.namespace) if parts else [])


async def ato_forget(scope: Scope, wishes: Sequence[Wish]) -> Forgotten:
    """Async twin of `to_forget`."""
    parts = []
    for wish in wishes:
        versions = await ahistory(scope, wish.key)
        events = {key: await ahistory(scope, key) for key in _events_of(versions)}
        meant, kept = _told_apart(wish, versions, events)
        evidence = [await ahistory(scope, key) for key in _evidence_of(meant)]
        texts = _texts_of(meant) if wish.key else [wish.words]
        hits = [
            await scope.store.arecall(scope.namespace, text, k=MOST_TURNS, kinds=("turn",))
            for text in texts
            if text
        ]
        parts.append((wish, _deletions(wish, texts, evidence, hits), texts, kept))
    return _forgotten(parts, await scope.store.aquarantined(scope.namespace) if parts else [])


def _forgotten(
    parts: Sequence[tuple[Wish, dict[str, Delete], Sequence[str], Sequence[Insert]]], held: Iterable[Held]
) -> Forgotten:
    turns = {key: delete for _, deletions, _, _ in parts for key, delete in deletions.items()}
    texts = [text for _, _, said, _ in parts for text in said]
    return Forgotten(
        wishes=tuple(wish for wish, *_ in parts),
        turns=tuple(turns.values()),
        held=tuple(each.id for each in held if _is_of(each, turns.keys(), texts)),
        kept=tuple(insert for *_, kept in parts for insert in kept),
        summaries=tuple(wish.key for wish, _, _, kept in parts if kept and wish.key),
    )


def _is_of(held: Held, turns: Collection[str], texts: Iterable[str]) -> bool:
    """Whether what is held comes from these turns, or says one of these texts."""
    if any(key in turns for key in held.operation.evidence):
        return True
    said = "" if isinstance(held.operation, Delete) else held.operation.text
    return any((meant := content_words(text)) and meant <= content_words(said) for text in texts)


# A summary goes, and with it the event that is meant; the others are told as before.


def _events_of(versions: Sequence[MemoryVersion]) -> list[str]:
    """The keys of the events that a memory stands for, as long as it is there."""
    memory = versions[-1].memory if versions else None
    return memory.value["of"] if memory and memory.value.get("attribute") == SUMMARY else []


def _told_apart(
    wish: Wish, versions: Sequence[MemoryVersion], events: Mapping[str, Sequence[MemoryVersion]]
) -> tuple[list[MemoryVersion], list[Insert]]:
    """The versions of what is meant, and what is to be kept of a summary's events."""
    last = {
        key: memory
        for key, each in events.items()
        if len(each) > 1 and each[-1].memory is None and (memory := each[-2].memory)
    }
    asked = content_words(wish.words)
    shared = {key: asked & about(memory) for key, memory in last.items()}
    meant: set[str] = set()
    for word in asked:  # "my sister in Rome" means the event with both, and no other in Rome
        having = [key for key, each in shared.items() if word in each]
        most = max((len(shared[key]) for key in having), default=0)
        meant |= {key for key in having if len(shared[key]) == most}
    if not meant:  # nobody can tell which
        return list(versions), []
    kept = [_again(last[key], _evidence_of(events[key])) for key in last if key not in meant]
    return [version for key in meant for version in events[key]], kept


def _again(memory: Memory, evidence: Sequence[str]) -> Insert:
    return Insert(
        key=memory.key,
        text=memory.text,
        kind=memory.kind,
        value=memory.value,
        session=memory.session,
        position=memory.position,
        importance=memory.importance,
        source=memory.source,
        valid_from=memory.valid_from,
        valid_to=memory.valid_to,
        expires_at=memory.expires_at,
        evidence=tuple(evidence),
        reason="its summary was forgotten",
    )


def _deletions(
    wish: Wish,
    texts: Sequence[str],
    evidence: Iterable[Sequence[MemoryVersion]],
    hits: Iterable[Iterable[Hit]],
) -> dict[str, Delete]:
    sources = [versions[-1].memory for versions in evidence if versions]
    turns = [turn for turn in sources if turn and turn.kind == "turn"]
    replies = {(turn.session, turn.position + 1) for turn in turns if turn.position is not None}
    turns += [
        turn
        for turn in (hit.memory for found in hits for hit in found)
        if any(_says(turn, text) for text in texts)
        or (turn.source == "assistant" and (turn.session, turn.position) in replies)
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
