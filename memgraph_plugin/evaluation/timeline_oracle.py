"""The model that knows a timeline's truth: what a policy does with a model that understands all.

It stands among the evaluations on purpose. It is no part of a product: it answers the decide step's own
request, in the form of its tool, so that what is measured is the way around a model and not a model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.tool import tool_call
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable

from memgraph_plugin.evaluation.told import Item, contains, tells
from memgraph_plugin.memalpha.operations import TOOL_NAME
from memgraph_plugin.memalpha.timeline_phrases import BY_NAME
from memgraph_plugin.memalpha.timelines import EVENT, Move, Timeline, Truth
from memgraph_plugin.memalpha.words import normalise

_REMEMBERED = re.compile(
    r'^(?P<handle>[a-z]+\d*) (?P<kind>semantic|episodic|core)\b[^\n]*?: (?P<text>".*")$', re.M
)
_TURN = re.compile(r'^(?P<handle>t\d+) \S+ \w+ [^\n]*\(user\): (?P<text>".*")$', re.M)

NEVER_PROPOSED = ("aside_stored", "injection_stored")
"""Measures of `evaluation/memory_writing.py` that say nothing of a memory for which this model decides."""


class TimelineOracle(BaseChatModel):
    """Answers what a timeline's turns change, in view of the memories that the request shows.

    A turn is recognised by its words. What is remembered already is not stored again; what nobody said of the
    user changes nothing. It understands each turn as it is said: an old value that is said again replaces the
    newer one, until that is said again, too.
    """

    timeline: Timeline

    @property
    def _llm_type(self) -> str:
        return "timeline-oracle"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Runnable[LanguageModelInput, AIMessage]:
        return self.bind(tools=list(tools), **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,  # noqa: ARG002
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **_: Any,
    ) -> ChatResult:
        request = next(str(each.text) for each in messages if each.type == "human")
        known = {each["handle"]: json.loads(each["text"]) for each in _REMEMBERED.finditer(request)}
        turns = {each["handle"]: json.loads(each["text"]) for each in _TURN.finditer(request)}
        ops = [op for handle, text in turns.items() for op in self.operations(handle, text, known)]
        args = {"ops": ops or [{"op": "noop", "reason": "nothing_new"}]}
        message = AIMessage("", tool_calls=[tool_call(name=TOOL_NAME, args=args, id="call")])
        return ChatResult(generations=[ChatGeneration(message=message)])

    def operations(self, turn: str, text: str, known: Mapping[str, str]) -> list[dict[str, Any]]:
        """What to do on a turn, as the tool has it; `known` are texts of memories by their handles."""
        found = []
        for move in moves_of(self.timeline, text):
            if move.fact and (op := _operation(self.timeline, move, known)):
                found.append({**op, "evidence": [turn]})
        return found


def moves_of(timeline: Timeline, text: str) -> tuple[Move, ...]:
    """What a turn with these words does; of the first one, where several have them."""
    said = normalise(text)
    for turn in timeline.turns:
        if turn.role == "user" and normalise(turn.text) == said:
            return timeline.moves_of(turn.key)
    return ()


def no_longer(truth: Truth) -> str:
    """How it is written down that a fact holds no more."""
    return f"It is no longer so that {truth.text[0].lower()}{truth.text[1:]}"


def _operation(timeline: Timeline, move: Move, known: Mapping[str, str]) -> dict[str, Any] | None:
    truth = timeline.truth(move.fact)
    held = _handle(truth, known)
    if move.act == "forget":
        return {"op": "delete", "handle": held, "reason": "user_request"} if held else None
    if move.act == "end":
        return _ended(truth, held, "supersede") if held else None
    mode = "correct" if move.act == "correct" else "supersede"
    other = _replaced(timeline, move, truth, known)
    if held:
        return _ended(other[0], other[1], mode) if other else None
    fact = {"text": truth.text, **_value(truth)}
    if other:
        return {"op": "update", "handle": other[1], "mode": mode, **fact}
    if truth.attribute == EVENT:
        assert truth.on is not None  # noqa: S101 - an event has a day
        fact |= {"kind": "episodic", "when": truth.on.isoformat()}
    return {"op": "insert", **fact}


def _ended(truth: Truth, handle: str, mode: str) -> dict[str, Any]:
    return {"op": "update", "handle": handle, "mode": mode, "text": no_longer(truth), **_value(truth)}


def _value(truth: Truth) -> dict[str, str]:
    return {"subject": "user", "attribute": truth.attribute, "value": truth.value}


def _replaced(
    timeline: Timeline, move: Move, truth: Truth, known: Mapping[str, str]
) -> tuple[Truth, str] | None:
    """What is remembered that cannot stand beside what was said, and its handle: of an attribute that has one
    value, any other one; that matters when old things are said again, which is not to be known as such."""
    single = truth.attribute != EVENT and BY_NAME[truth.attribute].single
    for other in timeline.truths:
        if other.id == move.old or (single and other.attribute == truth.attribute and other.id != truth.id):
            for handle, text in known.items():
                if tells(Item(key=handle, text=text), other.value):
                    return other, handle
    return None


def _handle(truth: Truth, known: Mapping[str, str]) -> str | None:
    return next((handle for handle, text in known.items() if contains(text, truth.value)), None)
