"""Rows to train and test a memory policy with: a memory, turns that follow, and questions after them. Pure.

A conversation is cut at several points (`cut`): what is remembered of all before is the seed, the next few
exchanges are to be read, and what can be asked then is asked. Each row is one decision, as in production, and
needs no other; the paper's trajectories of many chunks share one reward among all of them.

What measures is no matter to train on: rows of LoCoMo (whose licence forbids most uses, besides) are refused.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.jsonl import read_jsonl
from memgraph_plugin.memalpha.policies import Policy
from memgraph_plugin.memalpha.rewards import contains
from memgraph_plugin.memalpha.rules import RulePolicy
from memgraph_plugin.memalpha.timelines import EVENT, Move, Timeline
from memgraph_plugin.memalpha.validation import validate
from memgraph_plugin.operation_json import operation_from, plain_operation
from memgraph_plugin.types import Delete, Insert, Memory, NoOp, Operation, Turn, Update

NAMESPACE = ("training",)

_LOCOMO = re.compile(r"^D\d+:\d+$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What memory is asked after the turns.

    Args:
        gold: the answer; "" where there is none (any more), and `stale` must not be found.
        stale: what was so, was said by mistake, was to be forgotten, or never was.
        evidence: keys of the turns that say the answer.
        attribute: what of the user it is about, as in `facts`; "" where that is unknown.
        ended: keys of the turns that say of something stale that it is not so; of what was to be forgotten
            none, since to say of it that it is not so is to have kept it.
    """

    text: str
    gold: str = ""
    stale: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    attribute: str = ""
    ended: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One decision.

    Args:
        turns: to be read, oldest first.
        seed: the memory before, as what would insert it: with key and evidence.
        target: the operations that are known to be right, for a supervised beginning.
    """

    id: str
    turns: tuple[Turn, ...]
    seed: tuple[Insert, ...] = ()
    questions: tuple[Question, ...] = ()
    target: tuple[Operation, ...] = ()

    @property
    def memories(self) -> list[Memory]:
        """The seed as a policy is shown it."""
        return [as_memory(insert) for insert in self.seed]


class Talk(Protocol):
    """What episodes are cut from: exchanges in order, what can be asked after each, what is right to do."""

    @property
    def id(self) -> str: ...

    @property
    def exchanges(self) -> Sequence[Sequence[Turn]]: ...

    def questions(self, after: Turn) -> Sequence[Question]: ...

    def target(self, turns: Sequence[Turn], memories: Sequence[Memory]) -> Sequence[Operation]: ...


def cut(talk: Talk, *, exchanges: int = 1, policy: Policy | None = None) -> Iterator[Episode]:
    """The episodes of a conversation, one for each so many exchanges.

    The seed is what `policy` (the rules, where None) remembers of all that was said before. Questions are
    those whose evidence lies in the seed or in the turns; one without any is dropped with its episode.
    """
    policy = policy or RulePolicy()
    seed: dict[str, Insert] = {}
    for start in range(0, len(talk.exchanges), exchanges):
        part = talk.exchanges[start : start + exchanges]
        turns = tuple(turn for exchange in part for turn in exchange)
        known = {turn.key for turn in turns}.union(*(insert.evidence for insert in seed.values()))
        asked = [each for each in talk.questions(turns[-1]) if known.issuperset(each.evidence)]
        questions = tuple(sorted(asked, key=lambda each: not each.gold))
        before = tuple(seed.values())
        if questions:
            yield Episode(
                id=f"{talk.id}/{start}",
                turns=turns,
                seed=before,
                questions=questions,
                target=tuple(talk.target(turns, [as_memory(insert) for insert in before])),
            )
        for exchange in part:
            memories = [as_memory(insert) for insert in seed.values()]
            remember(seed, policy.propose(exchange, memories), f"{talk.id}/{len(seed)}.{exchange[0].key}")


def remember(seed: dict[str, Insert], operations: Sequence[Operation], name: str) -> None:
    """Apply operations to a memory of inserts by their keys; new ones are called after `name`."""
    for number, operation in enumerate(operations):
        match operation:
            case Insert():
                key = f"{name}.{number}"
                seed[key] = replace(operation, key=key)
            case Update():
                old = seed[operation.key]
                seed[operation.key] = replace(
                    old,
                    text=operation.text,
                    value=old.value if operation.value is None else operation.value,
                    importance=old.importance if operation.importance is None else operation.importance,
                    valid_from=operation.valid_from or old.valid_from,
                    evidence=operation.evidence,
                )
            case Delete():
                del seed[operation.key]
            case NoOp():
                pass


def as_memory(insert: Insert) -> Memory:
    """The memory that an insert with a key makes, at its first version."""
    return Memory(
        namespace=NAMESPACE,
        key=insert.key or "",
        text=insert.text,
        kind=insert.kind,
        value=insert.value,
        importance=insert.importance,
        valid_from=insert.valid_from,
    )


@dataclass(frozen=True, slots=True)
class TimelineTalk:
    """A generated timeline, whose truth tells what is right."""

    timeline: Timeline

    @property
    def id(self) -> str:
        return self.timeline.name

    @property
    def exchanges(self) -> Sequence[Sequence[Turn]]:
        return [exchange for session in self.timeline.sessions for exchange in session.exchanges]

    def questions(self, after: Turn) -> list[Question]:
        """What others are or do (`whose`) may be remembered of them: it is not asked about."""
        return [
            Question(
                text=each.text,
                gold=each.gold,
                stale=(*each.stale, *(value for value in each.absent if value not in each.whose)),
                evidence=each.evidence,
                attribute="" if each.attribute == EVENT else each.attribute,
                ended=self._ended(each.attribute),
            )
            for each in self.timeline.questions(after.at)
            if each.gold or each.stale or set(each.absent) - set(each.whose)
        ]

    def _ended(self, attribute: str) -> tuple[str, ...]:
        """The turns that say of a value that it is not so, whenever they come."""
        truths = [each for each in self.timeline.truths if each.attribute == attribute and each.ended_by]
        moves = [each for each in self.timeline.moves if each.act == "denied" and each.decoy]
        return (
            *(each.ended_by for each in truths if each.end != "forgotten"),
            *(each.turn for each in moves if each.decoy and each.decoy.attribute == attribute),
        )

    def target(self, turns: Sequence[Turn], memories: Sequence[Memory]) -> list[Operation]:
        """The operations that make memory true, as far as the validator lets them; never empty."""
        moves = [move for turn in turns for move in self.timeline.moves_of(turn.key)]
        replaced = {move.old for move in moves if move.old}
        operations = [
            operation
            for move in moves
            if move.fact not in replaced and (operation := self._right(move, memories))
        ]
        return [*validate(operations, turns, memories).accepted] or [NoOp()]

    def _right(self, move: Move, memories: Sequence[Memory]) -> Operation | None:
        if move.act not in ("state", "change", "correct", "end", "forget"):
            return None
        fact = self.timeline.truth(move.fact)
        meant = self.timeline.truth(move.old).value if move.old else fact.value
        known = next((each for each in memories if contains(each.text, meant)), None)
        if known is None and move.act in ("forget", "end"):
            return None
        if known and move.act == "forget":
            return Delete(key=known.key, evidence=(move.turn,), reason="user_request")
        if known and move.act == "end":
            text = known.text.replace("The user ", "The user no longer ", 1)
            return Update(key=known.key, text=text, mode="supersede", evidence=(move.turn,), reason="changed")
        if known and move.old:
            mode = "correct" if move.act == "correct" else "supersede"
            return Update(key=known.key, text=fact.text, mode=mode, evidence=(move.turn,))  # type: ignore[arg-type]
        if known:
            return None
        kind = "episodic" if fact.on else "semantic"
        since = fact.since if fact.on else None
        return Insert(text=fact.text, kind=kind, valid_from=since, evidence=(move.turn,))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class RecordedTalk:
    """A conversation of a user's file: a line of JSON with "id", "sessions" and "questions".

    A session is a list of turns {"role", "text", "at" (ISO 8601), "key"}; the key is "session:turn" (from 0)
    where there is none. A question is {"q", "gold", "stale", "evidence", "attribute", "ended"} (`Question`;
    the last two may be missing: any attribute, and where there is an answer, its evidence ends what is
    stale); it is asked after its last evidence, and no longer after the turn "until". What is right to do is
    what the rules would.
    """

    id: str
    sessions: tuple[tuple[Turn, ...], ...]
    asked: tuple[tuple[Question, str], ...]

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> RecordedTalk:
        """
        Raises:
            ConfigurationError: a field is missing or of another form, or it is of LoCoMo.
        """
        try:
            sessions = tuple(
                tuple(_turn(turn, f"{number}:{place}") for place, turn in enumerate(session))
                for number, session in enumerate(record["sessions"])
            )
            asked = tuple((_question(each), str(each.get("until", ""))) for each in record["questions"])
            name = str(record["id"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigurationError(
                f'A conversation has "id", "sessions" of turns ("role", "text", "at") and "questions" '
                f'("q", "gold", "evidence"): {error!r}'
            ) from error
        _refuse_locomo(turn.key for session in sessions for turn in session)
        return cls(name, sessions, asked)

    @property
    def exchanges(self) -> Sequence[Sequence[Turn]]:
        """Each begins with the first turn of the user behind an answer."""
        found: list[list[Turn]] = []
        for session in self.sessions:
            for place, turn in enumerate(session):
                if not place or (turn.role == "user" and session[place - 1].role == "assistant"):
                    found.append([])
                found[-1].append(turn)
        return found

    def questions(self, after: Turn) -> list[Question]:
        order = [turn.key for session in self.sessions for turn in session]
        said = set(order[: order.index(after.key) + 1])
        return [each for each, until in self.asked if said.issuperset(each.evidence) and until not in said]

    def target(self, turns: Sequence[Turn], memories: Sequence[Memory]) -> list[Operation]:
        return RulePolicy().propose(turns, memories)


# Files.


def read_talks(path: Path) -> list[RecordedTalk]:
    """The conversations of a JSONL file.

    Raises:
        ConfigurationError: it cannot be read, or a line is of another form.
    """
    return [RecordedTalk.read(record) for record in read_jsonl(path, ("id", "sessions", "questions"))]


def write_episodes(path: Path, episodes: Iterable[Episode]) -> None:
    """One line of JSON an episode."""
    with path.open("w", encoding="utf-8") as file:
        for episode in episodes:
            file.write(json.dumps(_plain(episode), ensure_ascii=False, default=_iso) + "\n")


def read_episodes(path: Path) -> list[Episode]:
    """What `write_episodes` wrote.

    Raises:
        ConfigurationError: it cannot be read, a line is of another form, or it is of LoCoMo.
    """
    return [_episode(record) for record in read_jsonl(path, ("id", "turns", "seed", "questions"))]


def digest(episodes: Iterable[Episode]) -> str:
    """A hash of all that the episodes say, in their order."""
    found = hashlib.sha256()
    for episode in episodes:
        found.update(json.dumps(_plain(episode), sort_keys=True, default=_iso).encode())
    return found.hexdigest()


def _plain(episode: Episode) -> dict[str, Any]:
    """Questions with an answer, and apart from them the probes of what must not be found."""
    return {
        "id": episode.id,
        "turns": [asdict(turn) for turn in episode.turns],
        "seed": [plain_operation(insert) for insert in episode.seed],
        "questions": [_plain_question(each, "stale") for each in episode.questions if each.gold],
        "probes": [_plain_question(each, "must_not_contain") for each in episode.questions if not each.gold],
        "target": [plain_operation(each) for each in episode.target],
    }


def _plain_question(question: Question, stale: str) -> dict[str, Any]:
    plain = asdict(question)
    return {"q": plain.pop("text"), stale: plain.pop("stale"), **plain}


def _episode(record: Mapping[str, Any]) -> Episode:
    try:
        turns = tuple(_turn(turn, turn["key"]) for turn in record["turns"])
        probes = [{**each, "stale": each["must_not_contain"]} for each in record.get("probes", [])]
        episode = Episode(
            id=str(record["id"]),
            turns=turns,
            seed=tuple(_insert(each) for each in record["seed"]),
            questions=tuple(_question(each) for each in [*record["questions"], *probes]),
            target=tuple(operation_from(each) for each in record.get("target", [])),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigurationError(f"This is no episode: {error!r}") from error
    _refuse_locomo(turn.key for turn in turns)
    return episode


def _insert(plain: Mapping[str, Any]) -> Insert:
    operation = operation_from(plain)
    if not isinstance(operation, Insert):
        raise TypeError("the seed is what was inserted")
    return operation


def _turn(fields: Mapping[str, Any], key: str) -> Turn:
    if fields["role"] not in ("user", "assistant"):
        raise ValueError(f'role is "user" or "assistant", not {fields["role"]!r}')
    return Turn(
        key=str(fields.get("key", key)),
        role=fields["role"],
        text=str(fields["text"]),
        at=_time(fields["at"]),
        speaker=fields.get("speaker"),
    )


def _question(fields: Mapping[str, Any]) -> Question:
    evidence = tuple(fields.get("evidence", ()))
    return Question(
        text=fields["q"],
        gold=str(fields.get("gold", "")),
        stale=tuple(fields.get("stale", ())),
        evidence=evidence,
        attribute=str(fields.get("attribute", "")),
        ended=tuple(fields.get("ended", evidence if fields.get("gold") else ())),
    )


def _time(said: str) -> datetime:
    when = datetime.fromisoformat(said)
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def _iso(value: Any) -> str:
    return str(value.isoformat())


def _refuse_locomo(keys: Iterable[str]) -> None:
    if any(_LOCOMO.match(key) for key in keys):
        raise ConfigurationError(
            "This is LoCoMo (its turns are called D1:1): it is for measuring, and never trained on."
        )
