"""Reading a list of messages: what was asked, what was said in this exchange, what we put there ourselves."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage

from memgraph_plugin.prompts import strip_memory_blocks
from memgraph_plugin.types import Turn

logger = logging.getLogger(__name__)

MARK = "memgraph_plugin"
"""The key in a message's `additional_kwargs` that says we wrote it."""

TURN = "turn:"
"""How the key of a remembered turn begins."""

QUERY_LENGTH = 2_000
"""Characters of a message that are searched with, at most; from both ends, where questions stand."""

MOST_READ = 20_000
"""Characters of a turn that are read to decide on it, at most; it is stored whole."""

_UNSTORABLE = re.compile("[\\0\ud800-\udfff]")
"""NUL and lone surrogates: no characters, and Postgres takes neither."""


@dataclass(frozen=True, slots=True)
class Said:
    """One turn, and where in the thread it stands: what is needed to store it."""

    turn: Turn
    position: int
    message_id: str


def turn_key(thread: str | None, message_id: str) -> str:
    """The key of a message's memory of kind `turn`: the same for the same message of the same thread.

    A digest, because ids are the caller's: any length, any character, repeated in other threads.
    """
    named = f"{thread or ''}\0{message_id}".encode("utf-8", "surrogatepass")
    return TURN + hashlib.sha256(named).hexdigest()[:32]


def is_injected(message: AnyMessage) -> bool:
    """Whether a program wrote this in somebody's name: we (memories), or LangChain (its summaries)."""
    return MARK in message.additional_kwargs or "lc_source" in message.additional_kwargs


def question_of(messages: Sequence[AnyMessage]) -> str:
    """What the user last said, cut to a length that is worth searching with; "" where there is nothing."""
    index = last_human(messages)
    return "" if index is None else as_query(_words_of(messages[index]))


def said_before(messages: Sequence[AnyMessage], most: int) -> tuple[str, ...]:
    """The last `most` things said before the user's last message, in order: "user: ...", "assistant: ..."."""
    index = last_human(messages) or 0
    said = [
        f"{role}: {as_query(text)}"
        for message in messages[:index]
        if (role := _role_of(message)) and (text := _words_of(message))
    ]
    return tuple(said[-most:])


def as_query(text: str) -> str:
    """The two ends of a long text, or all of a short one."""
    half = QUERY_LENGTH // 2
    return text if len(text) <= QUERY_LENGTH else f"{text[:half]}\n{text[-half:]}"


def with_memory_block(messages: Sequence[AnyMessage], block: str) -> list[AnyMessage]:
    """The messages with a marked one that holds the block, just before the last thing the user said."""
    index = last_human(messages)
    if not block or index is None:
        return list(messages)
    return [*messages[:index], HumanMessage(block, additional_kwargs={MARK: "memory"}), *messages[index:]]


def last_human(messages: Sequence[AnyMessage]) -> int | None:
    """Index of the last message that a human wrote."""
    for index in range(len(messages) - 1, -1, -1):
        if isinstance(messages[index], HumanMessage) and not is_injected(messages[index]):
            return index
    return None


def exchange(messages: Sequence[AnyMessage], *, thread: str | None, now: datetime) -> list[Said]:
    """What was said in the newest exchange: since the last finished answer before the user's last message.

    Tool calls and their results, system messages, empty messages and injected memory are nobody's words.
    """
    index = last_human(messages)
    if index is None:
        return []
    start = index
    while start and not is_answer(messages[start - 1]):
        start -= 1
    for message in messages[start:]:
        if _UNSTORABLE.search(message.text):
            logger.warning("NUL characters or lone surrogates were left out of message %r", message.id)
    return [
        Said(
            Turn(key=turn_key(thread, message.id or ""), role=role, text=text, at=now),
            position,
            storable(message.id or ""),
        )
        for position, message in enumerate(messages[start:], start)
        if (role := _role_of(message)) and (text := _words_of(message))
    ]


def as_read(said: Sequence[Said]) -> list[Turn]:
    """The turns as they are read to decide on them: the beginning of a very long one."""
    return [replace(each.turn, text=each.turn.text[:MOST_READ]) for each in said]


def is_answer(message: AnyMessage) -> bool:
    """Whether this ends an exchange: what the assistant says in the end, as against a call of a tool."""
    return isinstance(message, AIMessage) and not message.tool_calls


def _role_of(message: AnyMessage) -> Literal["user", "assistant"] | None:
    if is_injected(message):
        return None
    if isinstance(message, HumanMessage):
        return "user"
    return "assistant" if is_answer(message) else None


def _words_of(message: AnyMessage) -> str:
    """What was said, as a database can keep it, without our blocks."""
    # A human's blocks of text are paragraphs; a model's are one text, cut where a citation stands.
    blocks = message.content_blocks if isinstance(message, HumanMessage) else []
    parts = [block["text"] for block in blocks if block["type"] == "text"]
    return storable(strip_memory_blocks("\n".join(parts) if len(parts) > 1 else message.text)).strip()


def storable(text: str) -> str:
    """The text without NUL and lone surrogates."""
    return _UNSTORABLE.sub("", text)
