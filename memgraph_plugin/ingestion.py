"""Conversations from files into a store, verbatim: JSONL (a turn a line) or LoCoMo's JSON.

A turn of JSONL is an object with "text" (or "content"), and where known "speaker" or "role", "session", "at"
(a time in ISO form) and "id". The same file again writes nothing twice: an interrupted run is just repeated.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.store.base import MemoryStore
from memgraph_plugin.types import Insert, Namespace

BATCH = 64
"""Turns in one transaction, and in one call of the embedding model."""


def read_conversations(path: Path) -> dict[str, list[Insert]]:
    """The turns of each conversation in a file, in order, by the conversation's id ("" in JSONL).

    Raises:
        ConfigurationError: the file is not there, or not of either form; it names the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error
    if path.suffix == ".json":
        return {sample["sample_id"]: list(_locomo_turns(sample)) for sample in locomo_samples(text, path)}
    return {"": _jsonl_inserts(text, path)}


def ingest(
    store: MemoryStore,
    namespace: Namespace,
    turns: Sequence[Insert],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Store turns, a batch at a time; how many were new. `progress` is called with done and all.

    Raises:
        StoreError: the batches before were stored; a second run goes on where this one stopped.
    """
    new = 0
    for start in range(0, len(turns), BATCH):
        batch = turns[start : start + BATCH]
        said = "\0".join(f"{turn.key}\0{turn.text}" for turn in batch)
        receipts = store.apply(
            namespace,
            batch,
            idempotency_key="ingest:" + hashlib.sha256(said.encode()).hexdigest(),
            actor="ingestion",
        )
        new += 0 if receipts.replayed else len(receipts.applied)
        if progress:
            progress(start + len(batch), len(turns))
    return new


def locomo_samples(text: str, path: Path) -> list[dict[str, Any]]:
    """The samples of a LoCoMo file: "sample_id", "conversation" and "qa" each."""
    try:
        samples = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigurationError(f"{path} is not JSON: {error}") from error
    samples = samples if isinstance(samples, list) else [samples]
    if not all(isinstance(s, dict) and {"sample_id", "conversation"} <= s.keys() for s in samples):
        raise ConfigurationError(
            f'{path} is not LoCoMo\'s JSON: each sample has "sample_id" and "conversation". '
            "A conversation of your own goes into a .jsonl file, a turn a line."
        )
    return samples


def _locomo_turns(sample: Mapping[str, Any]) -> Iterator[Insert]:
    conversation = sample["conversation"]
    sessions = [name for name, turns in conversation.items() if isinstance(turns, list)]
    for session in sorted(sessions, key=lambda name: int(name.rpartition("_")[2])):
        at = _locomo_time(conversation.get(f"{session}_date_time", ""))
        for position, turn in enumerate(conversation[session]):
            caption = turn.get("blip_caption")
            yield Insert(
                key=turn["dia_id"],
                kind="turn",
                text=f"{turn['speaker']}: {turn['text']}" + (f" [shares {caption}]" if caption else ""),
                value={"speaker": turn["speaker"], "text": turn["text"]},
                session=session,
                position=position,
                source=turn["speaker"],
                valid_from=at,
            )


def _locomo_time(text: str) -> datetime | None:
    """A session's time, as in "1:56 pm on 8 May, 2023"; None where it is written otherwise."""
    try:
        return datetime.strptime(text, "%I:%M %p on %d %B, %Y").replace(tzinfo=UTC)
    except ValueError:
        return None


def _jsonl_turns(text: str, path: Path) -> Iterator[tuple[int, Mapping[str, Any], str]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            turn = json.loads(line)
        except json.JSONDecodeError as error:
            raise ConfigurationError(f"{path}, line {number} is not JSON: {error}") from error
        said = (turn.get("text") or turn.get("content")) if isinstance(turn, dict) else None
        if not isinstance(said, str):
            raise ConfigurationError(f'{path}, line {number} has no "text"')
        yield number, turn, said


def _jsonl_inserts(text: str, path: Path) -> list[Insert]:
    positions: Counter[str] = Counter()
    inserts = []
    for number, turn, said in _jsonl_turns(text, path):
        session = str(turn.get("session", "1"))
        position = positions[session]
        positions[session] += 1
        speaker = turn.get("speaker")
        inserts.append(
            Insert(
                key=str(turn.get("id") or f"{session}:{position}"),
                kind="turn",
                text=f"{speaker}: {said}" if speaker else said,
                value={name: value for name, value in turn.items() if name != "content"} | {"text": said},
                session=session,
                position=position,
                source=str(turn.get("role") or speaker or ""),
                valid_from=_time(turn.get("at"), path, number),
            )
        )
    return inserts


def _time(text: str | None, path: Path, number: int) -> datetime | None:
    """A turn's time; one without a zone is read as UTC."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f'{path}, line {number}: "at" is no ISO time: {text!r:.80}') from error
    return at if at.tzinfo else at.replace(tzinfo=UTC)
