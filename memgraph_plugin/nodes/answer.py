"""The step that answers from passages, and cites them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from langchain_core.messages import AIMessage, AnyMessage, SystemMessage
from langchain_core.runnables import RunnableLambda

from memgraph_plugin.nodes.generate import QUOTED, ModelLike, model_source
from memgraph_plugin.nodes.transcript import MARK, with_memory_block
from memgraph_plugin.prompts import ANSWER_PROMPT, cited_numbers, neutralise, render_passages
from memgraph_plugin.state import AskOutput, AskState, Plain, hits_from
from memgraph_plugin.types import Hit

NOTHING = "Nothing in the documents bears on this."

QUOTES = "No model is configured; these passages bear on it, word for word:"


def answer(model: ModelLike, *, system_prompt: str | None = None) -> RunnableLambda[AskState, AskOutput]:
    """A node that answers from the passages alone, and says which of them the answer cites.

    Without a model it quotes the best passages, and says that it does so; where none was found, no model is
    asked. Passages go to the model as a delimited user message before the question, under numbers; a number
    that was not given is no citation. `system_prompt` replaces `ANSWER_PROMPT`; "" sends none.

    Reads: messages, memories.
    Writes: messages, citations.
    Paper: none; the sentences are after MemoRAG's, with numbers added.
    """
    load = model_source(model)
    system = ANSWER_PROMPT if system_prompt is None else system_prompt

    def answer_now(state: AskState) -> AskOutput:
        hits = hits_from(state.get("memories", []))
        chat = load() if hits else None
        return _cited(chat.invoke(_prompt(state["messages"], hits, system)), hits) if chat else _quoted(hits)

    async def aanswer_now(state: AskState) -> AskOutput:
        hits = hits_from(state.get("memories", []))
        chat = await asyncio.to_thread(load) if hits else None
        if chat is None:
            return _quoted(hits)
        return _cited(await chat.ainvoke(_prompt(state["messages"], hits, system)), hits)

    return RunnableLambda(answer_now, aanswer_now, name="answer")


def citations_of(numbers: Iterable[int], hits: Sequence[Hit]) -> list[Plain]:
    """What is cited of the passages that were given: number, key, document, source and text of each."""
    return [
        {
            "number": number,
            "key": (memory := hits[number - 1].memory).key,
            "document": memory.session,
            "source": memory.source,
            "text": memory.text,
        }
        for number in numbers
        if 0 < number <= len(hits)
    ]


def _cited(reply: AIMessage, hits: Sequence[Hit]) -> AskOutput:
    return {"messages": [reply], "citations": citations_of(cited_numbers(reply.text), hits)}


def _quoted(hits: Sequence[Hit]) -> AskOutput:
    """An answer made of passages alone, labelled as such, and marked, so that nobody remembers it as said."""
    best = list(enumerate(hits[:QUOTED], 1))
    quotes = "\n".join(f"[{number}] “{neutralise(hit.memory.text)}”" for number, hit in best)
    text = f"{QUOTES}\n{quotes}" if hits else NOTHING
    reply = AIMessage(text, additional_kwargs={MARK: "quote"})
    return {"messages": [reply], "citations": citations_of((number for number, _ in best), hits)}


def _prompt(messages: Sequence[AnyMessage], hits: Sequence[Hit], system: str) -> list[AnyMessage]:
    shown = with_memory_block(messages, render_passages(hits))
    return [*([SystemMessage(system)] if system else []), *shown]
