"""Putting conversations into somebody's memory, and looking at what is there."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from memgraph_plugin.commands import options
from memgraph_plugin.errors import ConfigurationError

if TYPE_CHECKING:
    from memgraph_plugin.types import MemoryKind


def ingest(
    file: Annotated[
        Path, typer.Argument(help="JSONL (a turn a line), or JSON of LoCoMo.", dir_okay=False, exists=True)
    ],
    user: options.User,
) -> None:
    """Remember a conversation from a file, word for word. Running it again stores nothing twice.

    Each line of JSONL has "text", and where known "speaker" or "role", "session", "at" and "id". A file of
    several conversations gives each a user of its own: NAME-ID.

    Example: memgraph-plugin ingest talk.jsonl --user ana
    """
    from memgraph_plugin import ingestion
    from memgraph_plugin.store.open import open_store
    from memgraph_plugin.terminal import counting

    conversations = ingestion.read_conversations(file)
    users = {name: f"{user}-{name}" if len(conversations) > 1 else user for name in conversations}
    namespaces = {name: options.namespace(users[name]) for name in conversations}
    with open_store(options.settings()) as store:
        for name, turns in conversations.items():
            with counting(options.console(err=True), users[name]) as progress:
                new = ingestion.ingest(store, namespaces[name], turns, progress=progress)
            typer.echo(f"{users[name]}: {len(turns)} turns, {new} of them new")


def search(
    query: Annotated[str, typer.Argument(help='What to look for; "" lists the newest.')],
    user: options.User,
    k: Annotated[int, typer.Option("-k", min=1, help="Memories at most.")] = 10,
    kind: Annotated[
        list[str] | None, typer.Option("--kind", help="Only these kinds; may be repeated.")
    ] = None,
    as_of: Annotated[str | None, typer.Option("--as-of", metavar="DATE", help="What was so then.")] = None,
    known_at: Annotated[
        str | None, typer.Option("--known-at", metavar="DATE", help="As far as it had been told by then.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Search somebody's memory, as an assistant would.

    A DATE is a day or a time, as 2026-03-01 or 2026-03-01T12:00+01:00; a day means its beginning, here.

    Example: memgraph-plugin search --user ana "where does she live" --kind semantic
    """
    from memgraph_plugin.state import plain_hits
    from memgraph_plugin.store.open import open_store
    from memgraph_plugin.terminal import memory_table

    namespace = options.namespace(user)
    kinds = _kinds(kind)
    valid, known = _time("--as-of", as_of), _time("--known-at", known_at)
    with open_store(options.settings()) as store:
        hits = store.recall(namespace, query, k=k, kinds=kinds, valid_at=valid, known_at=known)
    if as_json:
        typer.echo(json.dumps(plain_hits(hits), ensure_ascii=False, indent=2))
    elif hits:
        options.console().print(memory_table(hits, scores=bool(query.strip())))
    else:
        then = " of then" if as_of or known_at else ""
        typer.echo(f"Nothing is remembered of {user}{then}.")


def history(
    key: Annotated[str, typer.Argument(help="A memory's key, as `search` shows it.")], user: options.User
) -> None:
    """Show every version of a memory, also of one that was forgotten.

    Example: memgraph-plugin history --user ana 0197f2c4-6e1b-7cc0-8c5e-2f6a41d1b9aa
    """
    from memgraph_plugin.store.open import open_store
    from memgraph_plugin.terminal import history_table

    namespace = options.namespace(user)
    with open_store(options.settings()) as store:
        options.console().print(history_table(store.history(namespace, key)))


def _kinds(names: list[str] | None) -> list[MemoryKind] | None:
    from memgraph_plugin.types import MemoryKind

    known = get_args(MemoryKind)
    if unknown := [name for name in names or () if name not in known]:
        raise ConfigurationError(f"unknown kind {unknown[0]!r}; there are: {', '.join(known)}")
    return [name for name in known if name in names] if names else None


def _time(option: str, text: str | None) -> datetime | None:
    """The time that an option says; one without a zone is of this place."""
    try:
        return None if text is None else datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError) as error:
        raise ConfigurationError(f"{option} is a date, as 2026-03-01, not {text!r:.40}.") from error
