"""Who drafts clues: any chat model, from notes or what was found; or a local model, from its memory.

Qian et al., MemoRAG (arXiv 2409.05591): `recall` gives spans, `rewrite` questions, `answer` a draft.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.runnables import Runnable

from memgraph_plugin.errors import MissingExtraError, ModelReplyError
from memgraph_plugin.memorag import prompts
from memgraph_plugin.memorag.clues import (
    KINDS,
    SLOTS,
    Ask,
    Example,
    example,
    read_json,
    read_slots,
    read_text,
    schema,
    task,
)
from memgraph_plugin.memorag.router import GOOD
from memgraph_plugin.prompts import fill
from memgraph_plugin.types import Clue, ClueKind

if TYPE_CHECKING:
    from memgraph_plugin.memorag.kv_memory import KVMemory
    from memgraph_plugin.models.weights import Weights

MOST_NOTES = 24_000
"""Characters of notes, and of what was found, that a drafter is shown at most: each is cut by as much."""

MAX_TOKENS = 160
"""Tokens of one reply from memory; MemoRAG's has 128."""

_Steps: TypeAlias = "Generator[list[BaseMessage] | tuple[Clue, ...], Any, None]"


class ChatModelDrafter:
    """Asks a chat model, hosted or local, for clues as JSON.

    It reads `notes` of the whole (`gist.gists` makes them) where there are any, and what was found so far.
    A reply that cannot be read is sent back once; then what can be made out in either reply counts.

    Args:
        model: any chat model; one without structured output is asked in words.
        notes: the text in short, in its order.
        kinds: which clues are drafted; "draft" adds an answer from memory, to search with.

    Raises (when it drafts):
        ModelReplyError: neither reply has a clue in it; both are kept as `raw`.
        Exception: the model's own.
    """

    name = "chat"

    def __init__(
        self, model: BaseChatModel, *, notes: Sequence[str] = (), kinds: Sequence[ClueKind] = KINDS
    ) -> None:
        self._model = model
        self._notes = tuple(notes)
        self._kinds = tuple(kinds)

    def draft(self, ask: Ask) -> list[Clue]:
        steps, model = self._steps(ask), self._shaped(ask)
        step = next(steps)
        while isinstance(step, list):
            step = steps.send(model.invoke(step))
        return list(step)

    async def adraft(self, ask: Ask) -> list[Clue]:
        """Async twin of `draft`."""
        steps, model = self._steps(ask), self._shaped(ask)
        step = next(steps)
        while isinstance(step, list):
            step = steps.send(await model.ainvoke(step))
        return list(step)

    def _shaped(self, ask: Ask) -> Runnable[LanguageModelInput, Any]:
        try:
            return self._model.with_structured_output(schema(self._kinds, ask.limit), include_raw=True)
        except NotImplementedError:
            return self._model

    def _steps(self, ask: Ask) -> _Steps:
        """The talk without the model: yields what to ask, is sent the reply, at last yields the clues."""
        request = self._request(ask)
        clues, raw = _read((yield request))
        if clues is None:
            slots = ", ".join(slot for slot, kind in SLOTS.items() if kind in self._kinds)
            repair = fill(prompts.CLUES_UNREADABLE, slots=slots)
            clues, again = _read((yield [*request, AIMessage(raw or "(nothing)"), HumanMessage(repair)]))
            if clues is None:
                clues = read_text(raw, "question") or read_text(again, "question")
                if not clues:
                    raise ModelReplyError("the model gave no clues", f"{raw}\n{again}")
        yield tuple(clues)

    def _request(self, ask: Ask) -> list[BaseMessage]:
        told = example(ask.scenario, ask.query)
        tasks = {
            slot: prompts.TIME_TASK if slot == "time" else task(ask.scenario, kind)
            for slot, kind in SLOTS.items()
            if kind in self._kinds
        }
        return [
            SystemMessage(prompts.render_clues_prompt(tasks, ask.limit)),
            HumanMessage(prompts.render_clues_request(told.query, turns=told.turns)),
            AIMessage(_as_json(told, list(tasks))),
            HumanMessage(_request(ask, self._notes, ask.found)),
        ]


class MemoryModelDrafter:
    """Asks the model that holds a compressed memory of the text, behind a fork: the memory stays as it is.

    All kinds of clues of a question are drafted in one pass, greedily, as lines after an example: no model
    is too small to follow that, and a model without a chat template is given the same words bare.

    Args:
        weights: the model that `memory` was made with.
        memory: of a document or a session (`Compressor.memorize`).
        kinds: which clues are drafted; "draft" adds an answer from memory, to search with.
        max_tokens: of each kind's reply.
        near: where the question itself finds something of this cosine, nothing is drafted. Models of half a
            billion parameters and less were measured to find less evidence with their clues than without
            (docs/memorag.md); None drafts always, which is for larger ones.

    Raises (when it drafts):
        ConfigurationError: the memory and a question are longer than the model reads.
        MissingExtraError: the extra `local` is not installed.
    """

    name = "memory"

    def __init__(
        self,
        weights: Weights,
        memory: KVMemory,
        *,
        kinds: Sequence[ClueKind] = KINDS,
        max_tokens: int = MAX_TOKENS,
        near: float | None = GOOD,
    ) -> None:
        self._weights = weights
        self._memory = memory
        self._kinds = tuple(kinds)
        self._max_tokens = max_tokens
        self._near = near

    def draft(self, ask: Ask) -> list[Clue]:
        if ask.finds(self._near):
            return []
        try:
            from memgraph_plugin.memorag.framing import Frame
            from memgraph_plugin.memorag.reader import answers
        except ImportError as error:
            raise MissingExtraError("local", "Drafting clues from a memory") from error
        frame = Frame.of(self._weights.tokenizer)
        asked = [frame.question(memory_prompt(ask, kind)) for kind in self._kinds]
        replies = answers(self._weights, self._memory, asked, max_tokens=self._max_tokens)
        return [
            clue
            for kind, ids in zip(self._kinds, replies, strict=True)
            for clue in read_text(_first(frame.reply(ids)), kind)
        ]

    async def adraft(self, ask: Ask) -> list[Clue]:
        """Async twin of `draft`."""
        return await asyncio.to_thread(self.draft, ask)


def memory_prompt(ask: Ask, kind: ClueKind) -> str:
    """What a memory model is told to draft clues of one kind, up to where the clues begin."""
    told, label = example(ask.scenario, ask.query), prompts.CLUE_LABELS[kind]
    before = prompts.render_clues_request(told.query, turns=told.turns)
    # At first the memory speaks for itself: what was found would only be copied.
    found = ask.found if ask.round > 1 else ()
    return fill(
        prompts.CLUES_BY_LINES,
        task=task(ask.scenario, kind),
        limit="2" if kind == "draft" else str(ask.limit),
        example=f"{before}\n{label}:\n" + "\n".join(told.of(kind)),
        request=_request(ask, (), found) + "\n",
        label=label,
    )


def _request(ask: Ask, notes: Sequence[str], found: Sequence[str]) -> str:
    return prompts.render_clues_request(
        ask.query,
        turns=ask.turns,
        notes=_cut(notes),
        found=_cut(found),
        today=f"{ask.now:%A} {ask.now.date().isoformat()}" if ask.now else "",
    )


def _cut(lines: Sequence[str]) -> list[str]:
    """All lines, each at its share of `MOST_NOTES` where they are too long together."""
    whole = sum(map(len, lines))
    return [line[: len(line) * MOST_NOTES // whole] if whole > MOST_NOTES else line for line in lines]


def _as_json(told: Example, slots: Sequence[str]) -> str:
    lists = {slot: () if slot == "time" else told.of(SLOTS[slot]) for slot in slots}
    return json.dumps(lists, ensure_ascii=False)


def _read(reply: Any) -> tuple[list[Clue] | None, str]:
    """The clues of a reply, a message or what structured output makes of one, and its text.

    None where it is not what was asked for; the arguments of a call that are no JSON are text, too.
    """
    message = reply if isinstance(reply, AIMessage) else reply["raw"]
    raw = "\n".join([str(message.text), *(str(call["args"]) for call in message.invalid_tool_calls)]).strip()
    if message is not reply and isinstance(reply["parsed"], dict):
        return read_slots(reply["parsed"]), raw
    try:
        return read_json(raw), raw
    except ModelReplyError:
        return None, raw


def _first(reply: str) -> str:
    """A reply up to where its writer goes on with a question of its own, as models without templates do."""
    return reply.partition("\nQuestion:")[0]
