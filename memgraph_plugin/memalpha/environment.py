"""Where a policy is tried: one decision on a store of its own, judged by what recall finds afterwards.

A reply goes the way of production: it is read, parsed by the handles of this call, validated, and applied to
a store; a policy cannot learn what the database would refuse. The store is made by who calls (`new_store`):
the in-memory one, with vectors or by words alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from memgraph_plugin import prompts
from memgraph_plugin.errors import ModelReplyError
from memgraph_plugin.memalpha.blocks import PROFILE, CoreBlock, with_declared
from memgraph_plugin.memalpha.episodes import NAMESPACE, Episode, Question
from memgraph_plugin.memalpha.form import FOUND, WRITABLE
from memgraph_plugin.memalpha.grounding import ungrounded
from memgraph_plugin.memalpha.operations import Handles, Parsed, parse_operations, read_json
from memgraph_plugin.memalpha.policies import Policy
from memgraph_plugin.memalpha.rewards import Asked, Call, Outcome, Recalled, Rewards, rewards
from memgraph_plugin.memalpha.tools import FIELDS
from memgraph_plugin.memalpha.validation import LIMITS, Limits, validate
from memgraph_plugin.memalpha.words import content_words, share
from memgraph_plugin.tokens import estimate_tokens
from memgraph_plugin.types import (
    Delete,
    Hit,
    Insert,
    Memory,
    MemoryKind,
    MemoryVersion,
    Namespace,
    NoOp,
    Operation,
    Receipts,
    Turn,
    Update,
    name_of,
)

_ALL = 10_000


class Shelf(Protocol):
    """What is needed of a memory store; `MemoryStore` has it."""

    def apply(self, namespace: Namespace, operations: Sequence[Operation]) -> Receipts: ...

    def recall(
        self,
        namespace: Namespace,
        query: str,
        *,
        k: int = 10,
        kinds: Sequence[MemoryKind] | None = None,
        token_budget: int | None = None,
    ) -> list[Hit]: ...

    def history(self, namespace: Namespace, key: str) -> list[MemoryVersion]: ...


Answerer = Callable[[str, Sequence[str]], str]
"""A frozen reader: the answer to a question from the texts that were found, best first."""


def quote(question: str, texts: Sequence[str]) -> str:  # noqa: ARG001 - an `Answerer`
    """The answerer without a model: what was found first."""
    return texts[0] if texts else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """How decisions are asked for, and judged. Its `repr` is all of it but code: by that a training is known.

    Args:
        new_store: makes an empty store.
        k: memories that are recalled for a question, at most.
        budget: tokens of them together, at most: who keeps too much finds less. As small as these memories
            are, one or two facts; in production it is hundreds, of memories of years.
        core: the blocks of the profile; the policy sees them always, as it does in production.
        shown, newest: memories that it sees, at most: those that recall finds for the turns, and the newest
            beside them; as many as in production.
        prompt, ask: the system message's template, and what the request ends with; short ones by default,
            since what has been learned need not be said, and each token is read in every rollout.
    """

    new_store: Callable[[], Shelf] = field(repr=False)
    k: int = 5
    budget: int = 20
    core: tuple[CoreBlock, ...] = (PROFILE,)
    shown: int = 20
    newest: int = 5
    limits: Limits = LIMITS
    prompt: str = prompts.DECIDE_BRIEF
    ask: str = prompts.DECIDE_BRIEF_ASK
    answer: Answerer = field(default=quote, repr=False)
    _last: list[tuple[Episode, list[Memory]]] = field(
        default_factory=list, init=False, repr=False, compare=False
    )

    def memories(self, episode: Episode) -> list[Memory]:
        """What the policy is shown: core blocks, memories similar to the turns, the newest. Kept for the last
        episode, since the prompt, the schema and each reply of a group need the same."""
        if not self._last or self._last[0][0] is not episode:
            self._last[:] = [(episode, self._shown(episode))]
        return self._last[0][1]

    def _shown(self, episode: Episode) -> list[Memory]:
        store = self._stocked(episode)
        said = "\n".join(turn.text for turn in episode.turns)[:2_000]
        core = store.recall(NAMESPACE, "", k=_ALL, kinds=("core",))
        similar = store.recall(NAMESPACE, said, k=self.shown, kinds=FOUND)
        newest = store.recall(NAMESPACE, "", k=self.newest, kinds=FOUND)
        blocks = with_declared((hit.memory for hit in core), self.core, NAMESPACE)
        return [*blocks, *{hit.memory.key: hit.memory for hit in (*similar, *newest)}.values()]

    def handles(self, episode: Episode) -> Handles:
        """The names of what the policy is shown."""
        return Handles.assign(episode.turns, self.memories(episode))

    def messages(self, episode: Episode) -> list[dict[str, str]]:
        """The chat that asks for the decision."""
        return request(self.handles(episode), self.limits, self.prompt, self.ask)

    def play(self, episode: Episode, reply: str) -> Outcome:
        """What comes of a model's reply; one that cannot be read changes nothing."""
        handles = self.handles(episode)
        try:
            parsed = parse_operations(read_json(reply), handles, limits=self.limits)
        except ModelReplyError:
            return self._judge(episode, list(handles.memories.values()), Parsed(()), readable=False)
        return self._judge(episode, list(handles.memories.values()), parsed)

    def act(self, episode: Episode, policy: Policy) -> Outcome:
        """What comes of a policy's operations."""
        memories = self.memories(episode)
        return self._judge(episode, memories, Parsed(tuple(policy.propose(episode.turns, memories))))

    def rewards(self, episode: Episode, policy: Policy) -> Rewards:
        return rewards(self.act(episode, policy))

    def _judge(
        self, episode: Episode, memories: Sequence[Memory], parsed: Parsed, *, readable: bool = True
    ) -> Outcome:
        checked = validate(parsed.operations, episode.turns, memories, limits=self.limits)
        store = self._stocked(episode)
        before = _tokens(store)
        store.apply(NAMESPACE, checked.accepted)
        refused = (*parsed.rejected, *checked.rejected)
        calls = [
            Call(
                operation=name_of(each),
                duplicate=isinstance(each, NoOp) and each.reason.startswith("duplicate_of"),
            )
            for each in checked.accepted
        ]
        calls += [Call(operation=receipt.operation, code=receipt.code) for receipt in refused]
        return Outcome(
            asked=tuple(self._ask(store, question) for question in episode.questions),
            calls=tuple(calls),
            supported=_supported(parsed.operations, episode.turns, memories),
            readable=readable,
            before=before,
            read=sum(estimate_tokens(turn.text) for turn in episode.turns),
            after=_tokens(store),
        )

    def _stocked(self, episode: Episode) -> Shelf:
        store = self.new_store()
        store.apply(NAMESPACE, episode.seed)
        return store

    def _ask(self, store: Shelf, question: Question) -> Asked:
        hits = store.recall(NAMESPACE, question.text, k=self.k, kinds=WRITABLE, token_budget=self.budget)
        found = tuple(
            Recalled(text=hit.memory.text, evidence=_evidence(store, hit.memory.key)) for hit in hits
        )
        return Asked(
            gold=question.gold,
            question=question.text,
            attribute=question.attribute,
            stale=question.stale,
            ended=frozenset(question.ended),
            evidence=frozenset(question.evidence),
            found=found,
            answer=self.answer(question.text, [each.text for each in found]),
        )


def request(handles: Handles, limits: Limits, prompt: str, ask: str) -> list[dict[str, str]]:
    """The chat that asks a model what to do about what has these handles."""
    system = prompts.render_decide_prompt(limits.operations, limits.characters, template=prompt)
    asked = prompts.render_decide_request(handles.turns, handles.memories, ask)
    return [{"role": "system", "content": system}, {"role": "user", "content": asked}]


def written(operations: Sequence[Operation], handles: Handles) -> str:
    """Operations as a model writes them that is held to `shown_schema`, by handles: what `parse_operations`
    reads."""
    ops = []
    for operation in operations:
        proposal, fields = _proposal(operation, handles), ("op", *FIELDS[name_of(operation)])
        ops.append({name: proposal[name] for name in fields if name in proposal})
    return json.dumps({"ops": ops}, ensure_ascii=False)


def _proposal(operation: Operation, handles: Handles) -> dict[str, object]:
    proposal: dict[str, object] = {"op": name_of(operation)}
    if isinstance(operation, Update | Delete):
        names = {memory.key: handle for handle, memory in handles.memories.items()}
        proposal["handle"] = names[operation.key]
    if isinstance(operation, Insert | Update):
        proposal["text"] = operation.text
    if isinstance(operation, Insert):
        proposal["kind"] = operation.kind
        if operation.kind == "episodic" and operation.valid_from:
            proposal["when"] = operation.valid_from.date().isoformat()
    if isinstance(operation, Update):
        proposal["mode"] = operation.mode
    if isinstance(operation, NoOp):
        proposal["reason"] = operation.reason
    else:
        turns = {turn.key: handle for handle, turn in handles.turns.items()}
        proposal["evidence"] = [turns[key] for key in operation.evidence]
    return proposal


def _evidence(store: Shelf, key: str) -> frozenset[str]:
    """The turns of all versions: what was said of it before it changed was said of it."""
    return frozenset(turn for version in store.history(NAMESPACE, key) for turn in version.evidence)


def _tokens(store: Shelf) -> int:
    return sum(
        estimate_tokens(hit.memory.text) for hit in store.recall(NAMESPACE, "", k=_ALL, kinds=WRITABLE)
    )


def _supported(
    operations: Sequence[Operation], turns: Sequence[Turn], memories: Sequence[Memory]
) -> tuple[float, ...]:
    said = {turn.key: turn for turn in turns}
    known = {memory.key: memory for memory in memories}
    shares = []
    for operation in operations:
        if isinstance(operation, Insert | Update):
            evidence = [said[key] for key in operation.evidence if key in said]
            target = known.get(operation.key) if isinstance(operation, Update) else None
            source = " ".join([turn.text for turn in evidence] + ([target.text] if target else []))
            wanted = content_words(operation.text)
            grounded = wanted and not ungrounded(operation.text, evidence, target)
            shares.append(share(wanted, content_words(source)) if grounded else 0.0)
    return tuple(shares)
