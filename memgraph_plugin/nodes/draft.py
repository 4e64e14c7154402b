"""The steps that have a reply drafted before it is given: whose model drafts, and what comes of it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AnyMessage
from langchain_core.runnables import RunnableLambda
from langgraph.runtime import get_runtime

from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.nodes.generate import prompt_for
from memgraph_plugin.nodes.scope import time_of
from memgraph_plugin.nodes.transcript import question_of
from memgraph_plugin.prompts import ASSISTANT_PROMPT
from memgraph_plugin.selfmem.loop import begin
from memgraph_plugin.selfmem.protocols import Generator
from memgraph_plugin.state import (
    DraftOutput,
    DraftState,
    MemoryContext,
    hits_from,
    plain_request,
    read_field,
    request_from,
)
from memgraph_plugin.types import Candidate, Hit, Request


@dataclass(frozen=True, slots=True)
class ReplyDrafts:
    """Drafts of the reply to a conversation, by the model that gives it: a `Sampler`.

    The seed is not passed on: chat models take none in common. Drafts differ as far as the model's
    temperature makes them.
    """

    model: BaseChatModel
    messages: Sequence[AnyMessage]
    hits: Sequence[Hit]
    now: datetime
    system: str

    @property
    def fingerprint(self) -> Mapping[str, str]:
        return {"generator": "reply", "model": type(self.model).__name__}

    def sample(self, request: Request, number: int, *, seed: int = 0) -> Candidate:  # noqa: ARG002
        return Candidate(self.model.invoke(self._prompt(request)).text)

    async def asample(self, request: Request, number: int, *, seed: int = 0) -> Candidate:  # noqa: ARG002
        return await self.ahypothesis(request, seed=seed)

    async def ahypothesis(self, request: Request, *, seed: int = 0) -> Candidate:  # noqa: ARG002
        return Candidate((await self.model.ainvoke(self._prompt(request))).text)

    def candidates(self, requests: Sequence[Request], n: int, *, seed: int = 0) -> list[list[Candidate]]:
        return [[self.sample(each, number, seed=seed) for number in range(n)] for each in requests]

    def hypotheses(self, requests: Sequence[Request], *, seed: int = 0) -> list[Candidate]:
        return [self.sample(each, 0, seed=seed) for each in requests]

    def _prompt(self, request: Request) -> list[AnyMessage]:
        return prompt_for(self.messages, self.hits, request.memory, self.now, self.system)


def reply_drafts(
    load: Callable[[], BaseChatModel | None], *, system_prompt: str | None = None
) -> Callable[[Mapping[str, Any]], Generator]:
    """Who drafts the reply to the conversation in a state.

    Raises (when it is asked):
        ConfigurationError: there is no model.
    """
    system = ASSISTANT_PROMPT if system_prompt is None else system_prompt

    def drafts(state: Mapping[str, Any]) -> Generator:
        model = load()
        if model is None:
            raise ConfigurationError("selfmem= drafts with a model, and there is none.")
        now = time_of(read_field(get_runtime(MemoryContext).context, "now"))
        return ReplyDrafts(model, state["messages"], hits_from(state.get("memories", [])), now, system)

    return drafts


def begin_draft() -> RunnableLambda[DraftState, dict[str, Any]]:
    """A node that begins the rounds of one reply, without a memory.

    Reads: messages.
    Writes: source, request, seed; empties pool and trace.
    Paper: Selfmem (arXiv 2305.02437); departs from it: nothing is retrieved; what is remembered stays.
    """

    def start(state: DraftState) -> dict[str, Any]:
        source = question_of(state["messages"])
        request = plain_request(begin(source, []))
        return {"source": source, "request": request, "seed": uuid.uuid4().hex, "pool": [], "trace": []}

    return RunnableLambda(start, name="begin_draft")


def end_draft() -> RunnableLambda[DraftState, DraftOutput]:
    """A node that hands on the draft that was chosen last.

    Reads: request.
    Writes: self_memory.
    Paper: Selfmem.
    """

    def hand_on(state: DraftState) -> DraftOutput:
        return {"self_memory": request_from(state["request"]).memory}

    return RunnableLambda(hand_on, name="end_draft")
