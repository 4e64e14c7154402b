"""A long text told in short, piece by piece, by any chat model: to draft clues from without a memory model.

MemoRAG-Lite (Qian et al., arXiv 2409.05591, and its code). Departs from it: the gists stay text, which any
model reads, and each can be made anew alone.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage

from memgraph_plugin.errors import FingerprintMismatch
from memgraph_plugin.memorag.clues import language
from memgraph_plugin.memorag.prompts import GIST_PROMPT
from memgraph_plugin.prompts import fill, neutralise

logger = logging.getLogger(__name__)

FORMAT = "memgraph-gist/1"

PIECE = 4096
"""Tokens of a piece, about; MemoRAG-Lite's."""

BEGINNING = 600
"""Characters of a piece that stand for its gist where the model gives none."""

_LANGUAGES = {"en": "the language of the part", "zh": "Chinese", "ja": "Japanese", "ko": "Korean"}
_ENDS = (". ", "! ", "? ", ".\n", "。", "！", "？")


@dataclass(frozen=True, slots=True)
class Gist:
    """What one piece of a text says. `digest` is the sha256 of the piece: a gist holds as long as it does."""

    number: int
    digest: str
    text: str


def gists(
    model: BaseChatModel, text: str, *, done: Iterable[Gist] = (), tokens: int = PIECE, at_once: int = 4
) -> Iterator[Gist]:
    """The gist of each piece of a text, in order, as they are made; `len(pieces(text))` of them.

    What is in `done` is not asked for again, wherever the piece stands now: so an interrupted run goes on,
    and a changed text costs what changed. A model that fails raises, in its own words.

    Args:
        tokens: of a piece, about.
        at_once: pieces that the model is asked for at the same time.
    """
    rest = pieces(text, tokens)
    known = {gist.digest: gist.text for gist in done}
    for start in range(0, len(rest), at_once):
        group = rest[start : start + at_once]
        asked = [piece for piece in group if digest(piece) not in known]
        replies = model.batch([_request(piece) for piece in asked]) if asked else []
        known |= {
            digest(piece): _told(str(reply.text), piece) for piece, reply in zip(asked, replies, strict=True)
        }
        yield from _numbered(group, start, known)


async def agists(
    model: BaseChatModel, text: str, *, done: Iterable[Gist] = (), tokens: int = PIECE, at_once: int = 4
) -> AsyncIterator[Gist]:
    """Async twin of `gists`."""
    rest = pieces(text, tokens)
    known = {gist.digest: gist.text for gist in done}
    for start in range(0, len(rest), at_once):
        group = rest[start : start + at_once]
        asked = [piece for piece in group if digest(piece) not in known]
        replies = await model.abatch([_request(piece) for piece in asked]) if asked else []
        known |= {
            digest(piece): _told(str(reply.text), piece) for piece, reply in zip(asked, replies, strict=True)
        }
        for gist in _numbered(group, start, known):
            yield gist


def pieces(text: str, tokens: int = PIECE) -> list[str]:
    """The text in pieces of about so many tokens, cut between paragraphs, else sentences, else words.

    Text that is added at the end changes the last piece alone.
    """
    size = tokens if language(text[:4000]) != "en" else tokens * 4
    found, start = [], 0
    while start < len(text):
        end = start + size
        if end < len(text):
            window = text[start:end]
            sentence = max(window.rfind(mark) for mark in _ENDS) + 1
            cuts = (window.rfind("\n\n"), sentence, window.rfind(" "))
            end = start + next((cut for cut in cuts if cut > size // 2), size)
        found.append(text[start:end].strip())
        start = end
    return [piece for piece in found if piece]


def digest(piece: str) -> str:
    """By what a piece is known."""
    return hashlib.sha256(piece.encode("utf-8", "surrogatepass")).hexdigest()


def fingerprint(model: str, tokens: int = PIECE) -> dict[str, str]:
    """By what gists that may stand beside each other are known: who made them, and how."""
    return {"model": model, "prompt": digest(GIST_PROMPT), "tokens": str(tokens)}


def to_bytes(gist: Gist) -> bytes:
    """A gist as it is stored: its piece's digest and its text, as JSON."""
    return json.dumps([gist.digest, gist.text], ensure_ascii=False).encode("utf-8", "backslashreplace")


def from_bytes(stored: Iterable[bytes], digests: Sequence[str]) -> list[Gist]:
    """The gists, of those that are stored, of the pieces that a text has now, in the text's order.

    Raises:
        FingerprintMismatch: these bytes are no gists.
    """
    try:
        known = dict(map(json.loads, stored))
    except (ValueError, TypeError) as error:
        raise FingerprintMismatch(f"These are no gists: {error}. Memorize the text anew.") from error
    return [Gist(number, name, known[name]) for number, name in enumerate(digests) if name in known]


def _request(piece: str) -> list[HumanMessage]:
    return [HumanMessage(fill(GIST_PROMPT, language=_LANGUAGES[language(piece)], text=neutralise(piece)))]


def _told(reply: str, piece: str) -> str:
    if told := reply.strip():
        return told
    logger.warning("The model gave no gist of a piece; its beginning stands for it")
    return piece[:BEGINNING]


def _numbered(group: Sequence[str], start: int, known: dict[str, str]) -> Iterator[Gist]:
    for number, piece in enumerate(group, start):
        yield Gist(number, digest(piece), known[digest(piece)])
