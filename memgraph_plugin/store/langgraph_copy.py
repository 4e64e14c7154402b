"""Take over what LangGraph's PostgresStore holds: items, times and times to live, with vectors made anew.

The source is only read. Its vectors stay there: they are of single fields, by a model that nobody noted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import psycopg
from langgraph.store.base import PutOp
from psycopg.rows import dict_row

from memgraph_plugin.errors import ConfigurationError, InvalidValue
from memgraph_plugin.store import records
from memgraph_plugin.store.connection import checked_conninfo, translated
from memgraph_plugin.store.database import Conn
from memgraph_plugin.store.journal import Batch, texts_to_embed
from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.store.sql import query
from memgraph_plugin.store.storable import storable_ops

PAGE = 500
"""Items read, embedded and written together."""

ACTOR = "migrate-from langgraph-store"

Record = dict[str, Any]


@dataclass(slots=True)
class Copied:
    """What became of the items of a LangGraph store.

    unchanged: copied before, or changed here since, or deleted here since. refused: prefix, key and why.
    """

    new: int = 0
    updated: int = 0
    unchanged: int = 0
    expired: int = 0
    refused: list[tuple[str, str, str]] = field(default_factory=list)


def copy_langgraph_store(
    source: str,
    store: PostgresMemoryStore,
    *,
    source_schema: str = "public",
    progress: Callable[[int, int], None] | None = None,
) -> Copied:
    """Copy every item of LangGraph's table `store`; whoever copies again copies what has changed there since.

    An item here that is as new as the one there is left alone, and one that was deleted here stays deleted.
    Times of creation and change are kept; the history here begins with the copy. `progress` is told how many
    are done, of how many.

    Args:
        source: the connection string of the database that LangGraph's store is in.
        store: where they go; its model makes the vectors.
        source_schema: the Postgres schema of LangGraph's tables.

    Raises:
        ConfigurationError: there is no such table.
        DatabaseUnavailable, StoreError: of either database. What was copied before stays; begin again.
    """
    copied, done = Copied(), 0
    with translated():
        conn = psycopg.connect(checked_conninfo(source), autocommit=True, row_factory=dict_row)
    with conn:
        if not _read(conn, "langgraph_table", source_schema)[0]["present"]:
            raise ConfigurationError(
                f"There is no table of LangGraph's store in the schema {source_schema!r}."
            )
        total = _read(conn, "langgraph_count", source_schema)[0]["count"]
        for page in _pages(conn, source_schema):
            for prefix, items in groupby(page, lambda record: record["prefix"]):
                _copy(store, prefix, list(items), copied)
            done += len(page)
            if progress is not None:
                progress(done, max(done, total))
    return copied


def _pages(conn: psycopg.Connection[Record], schema: str) -> Iterator[list[Record]]:
    """By key and not by a cursor, which would hold a transaction open while models run."""
    where: Record = {"limit": PAGE, "prefix": None, "key": None}
    while page := _read(conn, "langgraph_items", schema, where):
        yield page
        where |= {"prefix": page[-1]["prefix"], "key": page[-1]["key"]}


def _read(
    conn: psycopg.Connection[Record], name: str, schema: str, parameters: Mapping[str, Any] | None = None
) -> list[Record]:
    with translated():
        return conn.execute(query(name, schema), parameters).fetchall()


def _copy(store: PostgresMemoryStore, prefix: str, items: list[Record], copied: Copied) -> None:
    """The items of one namespace: what is new or newer, in one transaction."""
    puts: dict[str, PutOp] = {}
    for item in items:
        try:
            put = PutOp(records.decode(prefix), item["key"], _value(item), ttl=_minutes(item))
            if item["expired"]:
                copied.expired += 1
            else:
                (puts[item["key"]],) = storable_ops([put])  # type: ignore[assignment]
        except (ValueError, RecursionError) as error:
            copied.refused.append((prefix, item["key"], str(error)))
    if not puts:
        return
    store._open()
    found = store._database.fetch("known_keys", {"namespace": prefix, "keys": list(puts)})
    known = {record["key"]: record["updated_at"] for record in found}
    there = {item["key"]: item for item in items}
    newer = {
        key
        for key, changed in known.items()
        if changed and there[key]["updated_at"] and changed < there[key]["updated_at"]
    }
    new = puts.keys() - known.keys()
    _write(store, [put for key, put in puts.items() if key in new | newer], there)
    copied.new += len(new)
    copied.updated += len(newer)
    copied.unchanged += len(puts) - len(new) - len(newer)


def _write(store: PostgresMemoryStore, puts: list[PutOp], there: Mapping[str, Record]) -> None:
    """As puts that keep their times; a friend of the store, whose transaction this is."""
    if not puts:
        return
    batch = Batch(
        namespace=puts[0].namespace,
        language=store.language,
        vectors=store._embed(texts_to_embed(puts, store._fields)),
        fields=store._fields,
        actor=ACTOR,
    )
    encoded = records.encode(batch.namespace)
    times = [
        (item["created_at"], item["updated_at"], item["expires_at"], put.ttl, encoded, put.key)
        for put, item in ((put, there[put.key]) for put in puts)
        if item["updated_at"] is not None  # else it is of now, as every put is
    ]

    def write(conn: Conn) -> None:
        store._apply(conn, batch, puts)
        store._database.write_in(conn, "keep_times", times)

    store._database.transaction(write)


def _value(item: Record) -> dict[str, Any]:
    value = json.loads(item["value"])
    if not isinstance(value, dict):  # null would be a deletion
        raise InvalidValue(f"The value is a {type(value).__name__}; it must be a dict.")
    return value


def _minutes(item: Record) -> float | None:
    """The time to live. LangGraph rounds it, to none where it was less than half a minute."""
    if item["ttl_minutes"] == 0 and item["expires_at"] is not None:
        return float((item["expires_at"] - item["updated_at"]).total_seconds() / 60)
    return None if item["ttl_minutes"] is None else float(item["ttl_minutes"])
