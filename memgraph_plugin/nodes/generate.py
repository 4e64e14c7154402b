"""The step that answers, with what was recalled laid before the user's last message."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeAlias

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AnyMessage, SystemMessage
from langchain_core.runnables import RunnableLambda
from langgraph.runtime import get_runtime

from memgraph_plugin.nodes.scope import time_of
from memgraph_plugin.nodes.transcript import MARK, with_memory_block
from memgraph_plugin.prompts import ASSISTANT_PROMPT, neutralise, render_memory_block
from memgraph_plugin.selfmem.sentences import render_self_memory
from memgraph_plugin.state import MemoryContext, MemoryState, hits_from, read_field
from memgraph_plugin.types import Hit

ModelLike: TypeAlias = str | BaseChatModel | Callable[[], BaseChatModel | None] | None
"""A model, its name ("openai:...", "local:..."), or who makes it; the latter two load at the first answer."""

QUOTED = 3
"""Memories that an answer without a model quotes, at most."""


def generate(
    model: ModelLike, *, system_prompt: str | None = None
) -> RunnableLambda[MemoryState, dict[str, list[AIMessage]]]:
    """A node that answers once. Without a model it quotes the best memories, and says that it does so.

    Recalled memories go to the model as a delimited user message before the user's last one, and nowhere
    else: they never enter the state's messages; a draft of Selfmem's likewise, after them. `system_prompt`
    replaces `ASSISTANT_PROMPT`; "" sends none.

    Reads: messages, memories, self_memory.
    Writes: messages.
    Paper: none; with a draft, Selfmem (arXiv 2305.02437) in hypothesis mode.
    """
    load = model_source(model)
    system = ASSISTANT_PROMPT if system_prompt is None else system_prompt

    def generate_now(state: MemoryState) -> dict[str, list[AIMessage]]:
        hits = hits_from(state.get("memories", []))
        chat = load()
        return {"messages": [chat.invoke(_prompt(state, system)) if chat else quote(hits)]}

    async def agenerate_now(state: MemoryState) -> dict[str, list[AIMessage]]:
        hits = hits_from(state.get("memories", []))
        chat = await asyncio.to_thread(load)
        return {"messages": [await chat.ainvoke(_prompt(state, system)) if chat else quote(hits)]}

    return RunnableLambda(generate_now, agenerate_now, name="generate")


def model_source(model: ModelLike) -> Callable[[], BaseChatModel | None]:
    """Gives the model, loading it at the first call, and only once."""
    if model is None or isinstance(model, BaseChatModel):
        return lambda: model
    make = functools.partial(_load, model) if isinstance(model, str) else model
    load, lock = functools.cache(make), threading.Lock()

    def load_once() -> BaseChatModel | None:
        with lock:
            return load()

    return load_once


def quote(hits: Sequence[Hit]) -> AIMessage:
    """An answer made of memories alone, labelled as such, and marked, so that no memory is of a memory."""
    text = "No model is configured, and nothing is remembered that bears on this."
    if hits:
        # What was decided on goes before what was once said, which may be outdated.
        best = sorted(hits, key=lambda hit: hit.memory.kind == "turn")[:QUOTED]
        lines = "\n".join(f"- “{neutralise(hit.memory.text)}”" for hit in best)
        text = f"No model is configured; this is what is remembered, word for word:\n{lines}"
    return AIMessage(text, additional_kwargs={MARK: "quote"})


def prompt_for(
    messages: Sequence[AnyMessage], hits: Sequence[Hit], draft: str, now: datetime, system: str
) -> list[AnyMessage]:
    """What the model is shown: system prompt and conversation, the blocks before its last question."""
    shown = with_memory_block(messages, render_memory_block(hits, now))
    shown = with_memory_block(shown, render_self_memory(draft))
    return [*([SystemMessage(system)] if system else []), *shown]


def _prompt(state: MemoryState, system: str) -> list[AnyMessage]:
    hits, now = hits_from(state.get("memories", [])), read_field(get_runtime(MemoryContext).context, "now")
    return prompt_for(state["messages"], hits, state.get("self_memory", ""), time_of(now), system)


def _load(spec: str) -> BaseChatModel:
    from memgraph_plugin.models.chat import load_chat_model

    return load_chat_model(spec)
