"""Attempts to read or change what belongs to another namespace: through the stores, and by raw SQL.

    python -m benchmarks.leaks --attempts 100000

Namespaces are called what has broken others: siblings (acme, acme-corp, "acme "), wildcards, quotes, letters
that fold into each other, control characters, names as long as may be. Each memory carries its namespace's
name, so that a row in the wrong hands is seen in the result; rows that nobody may touch are compared at the end.
Everything is drawn from a seed. A leak is a row, or an effect, outside of what was asked for: there must be
none.
"""

# ruff: noqa: E501 - statements stay in one piece

from __future__ import annotations

import argparse
import json
import random
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg
from langgraph.store.base import GetOp, InvalidNamespaceError, PutOp, SearchOp
from psycopg.conninfo import make_conninfo

from benchmarks.measure import fresh_server
from memgraph_plugin.errors import MemgraphPluginError, MemoryNotFound
from memgraph_plugin.store import roles, schema
from memgraph_plugin.store.base import MemoryStore
from memgraph_plugin.store.in_memory import InMemoryMemoryStore
from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.store.visibility import SET_SCOPE
from memgraph_plugin.testing import HashingEmbeddings
from memgraph_plugin.types import Delete, Insert, Namespace, Update

LABELS = (
    "acme", "acme-corp", "acme_corp", "acme corp", "acme/corp", "acme,", "acme+", "acme!", "acme ", " acme",
    "acm", "acmee", "ACME", "Acme", "acmé", "acme\u0301", "ａｃｍｅ", "acme\u200b", "%", "_", "*", "a%", "a_me", "ac%",
    "\\", "\\%", "'", "''", '"', "`", "'; DROP TABLE memory; --", "$$", "$1", "%s", "%(namespace)s", "{scope}",
    "{schema}", "null", "NULL", "true", "0", "-1", "(0,1)", "[a-z]*", "^acme$", "acme|corp", "~", "/", "-", "\x01",
    "\x1f", "\x7f", "\t", "\n", "\r\n", "ß", "ss", "İ", "i̇", "ı", "🦊", "\uffff", "\U0010ffff", "ي", "\u202eemca",
    "x" * 300, "x" * 299 + "y", "memories", "default",
)  # fmt: skip
"""Labels of namespaces."""

QUERIES = (
    "tea",
    "tea in winter",
    "",
    "canary",
    "%",
    "'",
    "!!! & | <->",
    "acme",
    "日本",
    "tea:* | *",
    "\\",
    "x" * 500,
)

PINNED = 3
"""Memories of each namespace that nobody ever changes."""


@dataclass
class Tally:
    """What was tried, by kind; what leaked, in words."""

    tried: Counter[str] = field(default_factory=Counter)
    leaks: list[str] = field(default_factory=list)

    def saw(self, kind: str, found: Sequence[tuple[str, str | None]], allowed: Callable[[str], bool]) -> None:
        """Count a try that brought rows (their namespace, and the name that they carry)."""
        self.tried[kind] += 1
        for namespace, owner in found:
            if not allowed(namespace) or not (owner is None or allowed(owner)):
                self.leaks.append(f"{kind}: a row of {namespace!r:.60}, which carries {owner!r:.60}")


def within(scope: str) -> Callable[[str], bool]:
    """The rule that everything is held against: itself and what is below it, label by label."""
    return lambda namespace: namespace == scope or namespace.startswith(f"{scope}.")


def population(draw: random.Random, size: int) -> list[Namespace]:
    """Namespaces of one to four labels, many of them below, beside, or nearly equal to each other."""
    found = {(label,) for label in LABELS}
    while len(found) < max(size, len(LABELS)):
        parent = draw.choice(sorted(found)) if draw.random() < 0.7 else ()
        child = (*parent, draw.choice(LABELS))
        if len(child) <= 4 and len(".".join(child).encode()) <= 1_000:
            found.add(child)
    return sorted(found)


def fill(store: MemoryStore, namespaces: Sequence[Namespace]) -> None:
    for number, namespace in enumerate(namespaces):
        store.apply(namespace, [_insert(namespace, f"pin{i}", number) for i in range(PINNED)])


def _insert(namespace: Namespace, key: str, number: int = 0) -> Insert:
    text = f"canary {number} likes tea in winter {key}"
    return Insert(
        key=key, text=text, value={"owner": ".".join(namespace), "n": number}, session="s", position=0
    )


class ThroughTheStore:
    """Calls of a store, each about one namespace or prefix."""

    def __init__(self, store: MemoryStore, namespaces: Sequence[Namespace], seed: int, tally: Tally) -> None:
        self.store, self.namespaces, self.tally = store, namespaces, tally
        self.draw = random.Random(seed)
        self.name = type(store).__name__
        self.ways = [getattr(self, way) for way in dir(self) if way.startswith("try_")]

    def attempt(self) -> None:
        self.draw.choice(self.ways)(self.draw.choice(self.namespaces), self.draw.choice(self.namespaces))

    def saw(
        self, way: str, found: Sequence[tuple[Namespace, Any]], own: Namespace, *, below: bool = False
    ) -> None:
        rows = [(".".join(namespace), (value or {}).get("owner")) for namespace, value in found]
        encoded = ".".join(own)
        everything = below and not own
        allowed = within(encoded) if below else lambda namespace: namespace == encoded
        self.tally.saw(f"{self.name} {way}", rows, (lambda _: True) if everything else allowed)

    def filter(self, other: Namespace) -> dict[str, Any] | None:
        name = ".".join(other)
        return self.draw.choice([
            None, {"owner": name}, {"owner": {"$ne": name}}, {"owner": {"$in": [name, "acme"]}}, {"n": {"$gte": 0}},
            {"$or": [{"owner": name}, {"n": {"$exists": True}}]}, {"$not": {"owner": "x"}}, {"owner": {"$contains": name}},
        ])  # fmt: skip

    def try_get(self, own: Namespace, other: Namespace) -> None:
        item = self.store.get(own, self.draw.choice(["pin0", "scratch", other[0]]), refresh_ttl=True)
        self.saw("get", [(item.namespace, item.value)] if item else [], own)

    def try_search(self, own: Namespace, other: Namespace) -> None:
        prefix = own[: self.draw.randint(1, len(own))]
        found = self.store.search(
            prefix, query=self.draw.choice(QUERIES), filter=self.filter(other), limit=self.draw.choice([1, 10, 500]),
            offset=self.draw.choice([0, 0, 3]),
        )  # fmt: skip
        self.saw("search", [(item.namespace, item.value) for item in found], prefix, below=True)

    def try_recall(self, own: Namespace, other: Namespace) -> None:
        query = self.draw.choice([*QUERIES, other[0]])
        hits = self.store.recall(own, query, k=100, filter=self.filter(other))
        self.saw("recall", [(hit.memory.namespace, hit.memory.value) for hit in hits], own)

    def try_history(self, own: Namespace, other: Namespace) -> None:
        versions = []
        with suppress(MemoryNotFound):
            versions = self.store.history(own, self.draw.choice(["pin1", "scratch", other[-1]]))
        found = [(v.memory.namespace, v.memory.value) for v in versions if v.memory]
        self.saw("history", found, own)

    def try_list(self, own: Namespace, _: Namespace) -> None:
        prefix = own[: self.draw.randint(1, len(own))]
        if "*" in prefix:
            return
        found = self.store.list_namespaces(prefix=prefix, max_depth=self.draw.choice([None, len(prefix), 9]))
        self.saw("list_namespaces", [(namespace, None) for namespace in found], prefix, below=True)

    def try_apply(self, own: Namespace, other: Namespace) -> None:
        change = self.draw.choice([
            _insert(own, "scratch"), Delete(key="scratch"), Delete(key="never"), Delete(key=other[0]),
            Update(key="scratch", text="canary", value={"owner": ".".join(own)}),
        ])  # fmt: skip
        key = self.draw.choice([None, "same key"]) if isinstance(change, Insert) else None
        self.store.apply(own, [change], idempotency_key=key, actor=".".join(own))
        self.saw("apply", [], own)

    def try_batch(self, own: Namespace, other: Namespace) -> None:
        value = {"owner": ".".join(own), "text": "tea"}
        put = PutOp(own, "put", self.draw.choice([None, value]), ttl=self.draw.choice([None, 1.0]))
        theirs = PutOp(other, "put", {"owner": ".".join(other)})
        mine, _, found, _ = self.store.batch([GetOp(own, "put"), put, SearchOp(own, limit=5), theirs])
        self.saw(
            "batch",
            [(item.namespace, item.value) for item in [*found, *([mine] if mine else [])]],
            own,
            below=True,
        )

    def try_upkeep(self, own: Namespace, other: Namespace) -> None:
        """What is done to all below a namespace reaches none beside it."""
        doomed = (*own, "doomed")
        self.store.apply(doomed, [_insert(doomed, "k")])
        if own != other:
            theirs = self.store.history(other, "pin0")[0].batch_id
            with suppress(MemgraphPluginError):
                self.store.undo(own, theirs)
        self.saw("as_of", [(memory.namespace, memory.value) for memory in self.store.as_of(own)], own)
        for way in (self.store.delete_namespace, self.store.forget):
            if self.draw.random() < 0.5:
                way(doomed)
        self.saw("upkeep", [], own)

    def try_dotted(self, own: Namespace, other: Namespace) -> None:
        """Labels that would read as another namespace, were they only joined."""
        forged = self.draw.choice(
            [(".".join((*own, *other)),), (*own, ""), ("", *own), (*own, f".{other[0]}"), ()]
        )
        way = self.draw.choice([
            lambda: self.store.put(forged, "k", {"text": "tea"}), lambda: self.store.apply(forged, [Delete(key="pin0")]),
            lambda: self.store.batch([PutOp(forged, "pin0", None)]), lambda: self.store.recall(forged, "tea"),
            lambda: self.store.history(forged, "pin0"),
            lambda: self.store.batch([GetOp(forged or ("a.b",), "pin0"), SearchOp(forged or ("a.b",))]),
        ])  # fmt: skip
        try:
            way()
            self.tally.leaks.append(f"{self.name}: {forged!r:.60} was taken for a namespace")
        except (InvalidNamespaceError, ValueError):
            self.saw("forged labels", [], own)


class ByRawSql:
    """Statements of an application's role in the scope of one namespace, meant for the rows of another."""

    READS = (
        "SELECT namespace, value->>'owner' FROM {t}",
        "SELECT namespace, value->>'owner' FROM {t} WHERE namespace = %(other)s",
        "SELECT namespace, value->>'owner' FROM {t} WHERE namespace LIKE %(other)s || '%%'",
        "SELECT namespace, value->>'owner' FROM {t} WHERE namespace ILIKE %(own)s || '_%%' OR true",
        "SELECT namespace, value->>'owner' FROM {t} WHERE namespace ~ '.*' ORDER BY key LIMIT 50",
        "SELECT namespace, value->>'owner' FROM {t} WHERE pg_temp.spy(namespace, value->>'owner')",
        "SELECT namespace, value->>'owner' FROM {t} WHERE ctid = ANY(ARRAY['(0,1)', '(0,2)', '(1,1)', '(3,1)']::tid[])",
        "SELECT namespace, value->>'owner' FROM {t} TABLESAMPLE SYSTEM (50)",
        "SELECT namespace, value->>'owner' FROM {t} WHERE key = 'pin0' FOR UPDATE",
        "WITH all_of_it AS MATERIALIZED (SELECT * FROM {t}) SELECT namespace, value->>'owner' FROM all_of_it",
        "SELECT b.namespace, NULL FROM memgraph_plugin.operation_batch b LEFT JOIN {t} USING (namespace)",
        "SELECT a.namespace, b.value->>'owner' FROM {t} a JOIN {t} b ON a.namespace = b.namespace OR a.key < b.key LIMIT 99",
        "SELECT namespace, NULL FROM memgraph_plugin.memory_version WHERE key = 'pin0' UNION ALL SELECT namespace, "
        "value->>'owner' "
        "FROM {t} WHERE NOT starts_with(namespace, %(own)s)",
        "SELECT x, NULL FROM pg_stats, unnest(most_common_vals::text::text[]) x WHERE attname = 'namespace' "
        "AND schemaname = 'memgraph_plugin'",
        "SELECT namespace, value->>'owner' FROM jsonb_populate_recordset(NULL::{t}, (SELECT jsonb_agg(m) FROM {t} m))",
    )
    WRITES = (
        "UPDATE {t} SET reason = 'mine' WHERE namespace = %(other)s RETURNING namespace, NULL",
        "UPDATE {t} SET key = key || 'x', namespace = %(other)s RETURNING namespace, NULL",
        "UPDATE {m} SET importance = 9 WHERE key LIKE 'pin%%' RETURNING namespace, NULL",
        "UPDATE {m} SET expires_at = now() WHERE namespace = %(other)s RETURNING namespace, NULL",
        "DELETE FROM {t} WHERE namespace = %(other)s RETURNING namespace, NULL",
        "DELETE FROM {m} RETURNING namespace, value->>'owner'",
        "DELETE FROM {m} USING {t} v WHERE v.namespace <> memory.namespace RETURNING v.namespace, NULL",
        "WITH gone AS (DELETE FROM {m} WHERE key = 'pin0' RETURNING *) SELECT namespace, value->>'owner' FROM gone",
        "INSERT INTO memgraph_plugin.operation_batch VALUES (%(other)s, gen_random_uuid(), NULL, '', '', '[]', now()) "
        "RETURNING namespace, NULL",
        "INSERT INTO {m} (namespace, key, kind, version, value, text, language, tokens, importance, source, created_at, "
        "updated_at) VALUES (%(other)s, 'pin0', 'turn', 1, '{{}}', 'x', 'simple', 1, 1, '', now(), now()) "
        "ON CONFLICT (namespace, key) DO UPDATE SET text = 'mine' RETURNING namespace, NULL",
        "MERGE INTO {m} USING (SELECT %(other)s AS n) s ON namespace = n WHEN MATCHED THEN DELETE "
        "RETURNING s.n, NULL",
        "UPDATE memgraph_plugin.operation_batch SET actor = 'me' WHERE namespace <> %(own)s RETURNING namespace, NULL",
    )
    ESCAPES = (
        "SET LOCAL row_security = off; SELECT namespace, NULL FROM {m}",
        "SET LOCAL ROLE postgres; SELECT namespace, NULL FROM {m}",
        "ALTER TABLE {m} DISABLE ROW LEVEL SECURITY", "ALTER TABLE {m} NO FORCE ROW LEVEL SECURITY",
        "DROP POLICY scope ON {m}", "CREATE POLICY open ON {m} USING (true)", "TRUNCATE {m}", "DROP TABLE {m}",
        "CREATE RULE r AS ON SELECT TO {m} DO INSTEAD SELECT 1", "SELECT memgraph_plugin.guard('{m}')",
        "ALTER ROLE CURRENT_USER BYPASSRLS", "GRANT ALL ON {m} TO PUBLIC WITH GRANT OPTION",
        "CREATE VIEW memgraph_plugin.v AS SELECT * FROM {m}", "COPY {m} FROM STDIN",
        "CREATE TRIGGER t BEFORE UPDATE ON {m} FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    )  # fmt: skip

    def __init__(
        self, conninfo: str, namespaces: Sequence[Namespace], seed: int, tally: Tally, tenant: str | None
    ) -> None:
        self.namespaces, self.tally, self.tenant = [".".join(each) for each in namespaces], tally, tenant
        self.draw = random.Random(seed)
        self.conn = psycopg.connect(conninfo, autocommit=True)
        # As cheap as can be, so that the planner would like to ask it first; what it is shown, it tells.
        self.conn.execute(
            "CREATE FUNCTION pg_temp.spy(n text, o text) RETURNS boolean COST 0.0000001 LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE NOTICE '%', jsonb_build_array(n, o); RETURN true; END $$"
        )
        self.told: list[tuple[str, str | None]] = []
        self.conn.add_notice_handler(self._hear)

    def _hear(self, notice: psycopg.errors.Diagnostic) -> None:
        with suppress(ValueError):
            self.told.append(tuple(json.loads(notice.message_primary or "")))

    def scope(self, own: str) -> tuple[str | None, Callable[[str], bool]]:
        """What the transaction is set to, and what it may see of it."""
        scope = self.draw.choice([own] * 6 + [None, "", f"{own}.", f"{own}/", f"{own}%", "%", "..", "."])
        if self.tenant is None:
            scope = None if scope == "." else scope
            return scope, within(scope) if scope else lambda _: False
        bound, named = within(self.tenant), within(scope or "\0")
        return scope, lambda namespace: bound(namespace) and (scope == "." or named(namespace))

    def attempt(self) -> None:
        own, other = self.draw.choice(self.namespaces), self.draw.choice(self.namespaces)
        kind = self.draw.choice(["read"] * 5 + ["copy"] + ["write"] * 5 + ["escape"])
        statements = {
            "read": self.READS,
            "copy": self.READS[:1],
            "write": self.WRITES,
            "escape": self.ESCAPES,
        }[kind]
        table = self.draw.choice(["memgraph_plugin.memory", "memgraph_plugin.memory_version"])
        statement = self.draw.choice(statements).format(t=table, m="memgraph_plugin.memory")
        scope, allowed = self.scope(own)
        self.told.clear()
        found: list[tuple[str, str | None]] = []
        with suppress(psycopg.Error), self.conn.transaction(force_rollback=True):
            if scope is not None:
                self.conn.execute(SET_SCOPE, [scope])
            if kind == "copy":
                found = self._copied(table)
            elif kind == "escape":
                self.conn.execute(statement.encode())
                self.tally.leaks.append(f"it may: {statement}")
            else:
                found = self.conn.execute(statement.encode(), {"own": own, "other": other}).fetchall()
        role = "a tenant's role" if self.tenant else "a role"
        self.tally.saw(f"{role}, {kind}", [*found, *self.told], allowed)

    def _copied(self, table: str) -> list[tuple[str, str | None]]:
        with self.conn.cursor().copy(
            f"COPY (SELECT namespace, value->>'owner' FROM {table}) TO STDOUT".encode()
        ) as copy:
            copy.set_types(["text", "text"])
            return [(row[0], row[1]) for row in copy.rows()]


def untouched(conn: psycopg.Connection) -> list[Any]:
    """Everything about the rows that nobody may change, and how many rows are in the wrong hands."""
    tables = ("memory", "memory_version")
    pins = "SELECT t::text FROM memgraph_plugin.{} AS t WHERE key LIKE 'pin%' ORDER BY namespace, key"
    strays = "SELECT count(*) FROM memgraph_plugin.{} WHERE value->>'owner' <> namespace"
    return [
        conn.execute(query.format(table).encode()).fetchall() for query in (pins, strays) for table in tables
    ]


def hunt(conninfo: str, attempts: int, seed: int, size: int) -> Tally:
    """All attempts, on a database of the superuser `conninfo` that has nothing else in it."""
    tally, namespaces = Tally(), population(random.Random(seed), size)
    schema.migrate(conninfo, "memgraph_plugin")
    names = [f"{kind}_{uuid.uuid4().hex[:8]}" for kind in ("leaks", "tenant")]
    with psycopg.connect(conninfo, autocommit=True) as conn:
        try:
            for name, tenant in zip(names, (None, ("acme",)), strict=True):
                conn.execute(f"CREATE ROLE {name} LOGIN".encode())
                roles.grant(conninfo, "memgraph_plugin", name, tenant)
            free, bound = (make_conninfo(conninfo, user=name) for name in names)
            in_memory = InMemoryMemoryStore(embeddings=HashingEmbeddings())
            with PostgresMemoryStore(free, embeddings=HashingEmbeddings()) as store:
                for each in (store, in_memory):
                    fill(each, namespaces)
                conn.execute("ANALYZE")
                before = untouched(conn)
                pinned = _pins(in_memory, namespaces)
                hunters = [
                    ThroughTheStore(store, namespaces, seed, tally), ThroughTheStore(in_memory, namespaces, seed, tally),
                    ByRawSql(free, namespaces, seed, tally, None), ByRawSql(bound, namespaces, seed, tally, "acme"),
                ]  # fmt: skip
                for number in range(attempts):
                    hunters[number % len(hunters)].attempt()
            if untouched(conn) != before or _pins(in_memory, namespaces) != pinned:
                tally.leaks.append("rows that nobody may touch are not what they were")
            for hunter in hunters[2:]:
                hunter.conn.close()
        finally:
            for name in names:
                drop_role(conn, name)
    return tally


def drop_role(conn: psycopg.Connection, name: str) -> None:
    """Remove a role, its rights and what binds it; an autovacuum meanwhile ends first."""
    tables = conn.execute(
        "SELECT string_agg(format('%I.%I', schemaname, tablename), ', ') FROM pg_tables WHERE schemaname = 'memgraph_plugin'"
    ).fetchone()
    with conn.transaction():
        if tables and tables[0]:
            conn.execute(f"LOCK TABLE {tables[0]} IN ACCESS EXCLUSIVE MODE".encode())
        conn.execute(f"DROP OWNED BY {name}; DROP ROLE {name}".encode())


def _pins(store: MemoryStore, namespaces: Sequence[Namespace]) -> list[Any]:
    return [store.history(namespace, f"pin{i}") for namespace in namespaces for i in range(PINNED)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--attempts", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--namespaces", type=int, default=200)
    given = parser.parse_args()
    began = time.perf_counter()
    with fresh_server() as conninfo:
        tally = hunt(conninfo, given.attempts, given.seed, given.namespaces)
    for kind, tried in sorted(tally.tried.items()):
        print(f"{tried:>9,}  {kind}")
    print(f"{given.attempts:>9,}  attempts in {time.perf_counter() - began:,.0f} s: {len(tally.leaks)} leaks")
    for leak in tally.leaks[:20]:
        print(leak)
    sys.exit(bool(tally.leaks))


if __name__ == "__main__":
    main()
