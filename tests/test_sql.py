"""Every statement keeps to its namespace: read by Postgres' own parser, not believed.

That is what lets the tables be partitioned or distributed by namespace without a change, and what keeps one
user's memories out of another's answers. A table that has a namespace is one "of ours" below.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product

import psycopg
import pytest
from pglast import ast, parse_sql
from pglast.enums import A_Expr_Kind, BoolExprType, JoinType, SubLinkType
from psycopg import _queries

from memgraph_plugin.store.layout import Layout
from memgraph_plugin.store.sql import _QUERIES, SCHEMA, Indexed, query

NAMESPACE = "namespace"
SCOPES = ("exactly", "prefix", "everywhere")
LAYOUTS = (Layout(), Layout(partitions=8))
INDEXED = (
    Indexed("acme.ada", below=False, rest=False, dimension=384),
    Indexed("acme.ada", below=False, rest=True, dimension=384),
    Indexed("acme", below=True, rest=False, dimension=384),
)
"""Scopes of the statements of search that are about a namespace with an index of its own."""

INDEXED_SCOPES = {"indexed_exactly", "indexed_prefix", "indexed_rest", "nowhere"}

WITHOUT_NAMESPACE = {"migration", "embedding_model", "erasure"}
"""Tables of a few rows about the whole schema; a distributed database holds them on every node. A receipt of
what was erased must not name it."""

ACROSS = {
    "everywhere": "LangGraph's search of the empty prefix asks for all there is",
    "list_namespaces": "it is asked which namespaces there are",
    "sweep_ttl": "what has expired goes, whosever it was",
    "search_indexes": "a store notes which namespaces have an index, all at once",
    "no_writers": "who erases keeps writers away; it locks tables, and reads none",
    **dict.fromkeys(
        ("forget_terms_above", "forget_samples_above"),
        "what was erased was noted with the namespaces above it",
    ),
    "forget_indexes": "vectors of another model leave no index of any namespace",
    **dict.fromkeys(
        ("scattered_namespaces", "hold_memory", "rewrite", "named_files"),
        "whoever owns the tables puts their files in order",
    ),
    **dict.fromkeys(
        (
            "memories_to_seal",
            "versions_to_seal",
            "batches_to_seal",
            "held_to_seal",
            "count_to_seal",
            "compressed_to_seal",
        ),
        "a new key seals all there is, page by page",
    ),
    **dict.fromkeys(
        (
            *("await_model", "count_next", "count_vectors", "texts_without_next", "texts_without_vector"),
            *("hold_writers", "drop_other_vectors", "take_next_vectors", "forget_next_vectors"),
        ),
        "a new model makes the vectors of all there is, page by page",
    ),
}
"""Statements and scopes that go across namespaces because that is what they are for."""


# What there is.


def _tables() -> dict[str, set[str]]:
    """Columns by table, as schema.sql creates them."""
    created = (raw.stmt for raw in parse_sql(SCHEMA) if isinstance(raw.stmt, ast.CreateStmt))
    return {
        table.relation.relname: {c.colname for c in table.tableElts or () if isinstance(c, ast.ColumnDef)}
        for table in created
        if table.partbound is None
    }


OURS = {name for name, columns in _tables().items() if NAMESPACE in columns}


def _scopes(name: str) -> Sequence[str | Indexed]:
    return INDEXED if re.search(r"{(namespace|dimension)}", _QUERIES[name]) else SCOPES


def _statements() -> Iterator[tuple[str, str, str]]:
    """Name, scope and text of every statement, once for each scope and layout that changes it."""
    for name in sorted(_QUERIES.keys() - SCOPES - INDEXED_SCOPES):
        known = set()
        for scope, layout in product(_scopes(name), LAYOUTS):
            text = query(name, "memgraph_plugin", scope, layout, "memory")
            if text not in known:
                known.add(text)
                yield name, f"{scope}, {layout}", _numbered(text)


def _numbered(text: str) -> str:
    """Psycopg's parameters as Postgres knows them: $1, $2 ... the same number for the same name."""
    names: dict[str, int] = {}

    def number(match: re.Match[str]) -> str:
        return f"${names.setdefault(match[1] or str(match.start()), len(names) + 1)}"

    return re.sub(r"%(?:\((\w+)\))?[sbt]", number, text).replace("%%", "%")


# What a statement binds. A table of ours is bound where its namespace is compared with something given, a
# parameter or a column of what is no table of ours, or where it is joined, on the namespace, to one that is.


@dataclass
class Level:
    """The tables of one FROM, by alias, and what its conditions say of their namespaces."""

    aliases: dict[str, bool] = field(default_factory=dict)  # whether it is a table of ours
    bound: set[str] = field(default_factory=set)
    joined: list[tuple[str, str]] = field(default_factory=list)  # (a, b): where a is bound, b is

    def of_ours(self) -> set[str]:
        return {alias for alias, ours in self.aliases.items() if ours}

    def owner(self, node: object) -> str | None:
        """The table of ours whose namespace this expression is."""
        if isinstance(node, ast.CollateClause):
            node = node.arg
        if not isinstance(node, ast.ColumnRef):
            return None
        *path, last = [getattr(part, "sval", "*") for part in node.fields]
        if last != NAMESPACE:
            return None
        if path:
            return path[-1] if self.aliases.get(path[-1]) else None
        return min(self.of_ours(), default=None)  # of several, USING has made one

    def given(self, node: object) -> bool:
        """Whether this says nothing of the tables of ours of this level."""
        for part in _walk(node):
            if isinstance(part, ast.ColumnRef):
                path = [getattr(name, "sval", "*") for name in part.fields]
                if len(path) == 1 or self.aliases.get(path[-2]):
                    return False
        return True


def unbound(text: str) -> list[str]:
    """What in these statements reads or writes a table of ours without its namespace, in words."""
    faults: list[str] = []
    for raw in parse_sql(text):
        _check(raw.stmt, frozenset(), faults)
    return faults


def _check(stmt: ast.Node, known: frozenset[str], faults: list[str]) -> None:
    """`known`: the names of common table expressions, which hide tables of the same name."""
    if clause := getattr(stmt, "withClause", None):
        known |= {cte.ctename for cte in clause.ctes}
    if isinstance(stmt, ast.SelectStmt):
        _check_level(stmt.fromClause or (), [stmt.whereClause], known, faults)
    elif isinstance(stmt, ast.UpdateStmt):
        _check_level([stmt.relation, *(stmt.fromClause or ())], [stmt.whereClause], known, faults)
        _check_assignments(stmt.targetList, stmt.relation, faults)
    elif isinstance(stmt, ast.DeleteStmt):
        _check_level([stmt.relation, *(stmt.usingClause or ())], [stmt.whereClause], known, faults)
    elif isinstance(stmt, ast.InsertStmt):
        _check_columns([column.name for column in stmt.cols or ()], stmt.relation, faults)
        if (conflict := stmt.onConflictClause) is not None:
            if conflict.infer is not None:
                _check_columns([e.name for e in conflict.infer.indexElems or ()], stmt.relation, faults)
            _check_assignments(conflict.targetList, stmt.relation, faults)
    elif isinstance(stmt, ast.CopyStmt):
        if stmt.relation is not None:
            columns = [column.sval for column in stmt.attlist or ()] if stmt.is_from else []
            _check_columns(columns, stmt.relation, faults)
    elif any(isinstance(part, ast.RangeVar) and part.relname in OURS for part in _walk(stmt)):
        faults.append(f"{type(stmt).__name__}: not understood")
        return
    for part in _within(stmt):
        _check(part, known, faults)


def _check_level(
    items: Iterable[ast.Node], conditions: list[ast.Node | None], known: frozenset[str], faults: list[str]
) -> None:
    level = Level()
    tree = [_alias(item, level, known) for item in items]
    for joins in tree:
        for condition, bindable in joins:
            _note(condition, level, bindable)
    for condition in conditions:
        _note(condition, level, level.of_ours())
    ours, bound = level.of_ours(), set(level.bound)
    while more := {b for a, b in level.joined if a in bound} - bound:
        bound |= more
    faults += [f"{alias}: no namespace" for alias in sorted(ours - bound)]
    together = set(sorted(ours)[:1])
    either = level.joined + [(b, a) for a, b in level.joined]
    while more := {b for a, b in either if a in together} - together:
        together |= more
    if ours - together:
        faults.append(f"{', '.join(sorted(ours))}: not joined on the namespace")


def _alias(item: ast.Node, level: Level, known: frozenset[str]) -> list[tuple[ast.Node | None, set[str]]]:
    """Name what `item` brings to the level; its join conditions, each with the tables that it can bind."""
    if isinstance(item, ast.JoinExpr):
        before = level.of_ours()
        left = _alias(item.larg, level, known)
        first = level.of_ours() - before
        right = _alias(item.rarg, level, known)
        second = level.of_ours() - before - first
        # An outer join keeps the rows of one side whatever its condition says.
        bindable = {
            JoinType.JOIN_INNER: first | second, JoinType.JOIN_LEFT: second, JoinType.JOIN_RIGHT: first,
        }.get(item.jointype, set())  # fmt: skip
        if NAMESPACE in [name.sval for name in item.usingClause or ()]:
            _join(level, first, second, bindable)
        return [*left, *right, (item.quals, bindable)]
    name = item.relname if isinstance(item, ast.RangeVar) else None
    alias = item.alias.aliasname if getattr(item, "alias", None) else name or f"unnamed {len(level.aliases)}"
    level.aliases[alias] = name in OURS and (name not in known or bool(item.schemaname))
    return []


def _join(level: Level, first: set[str], second: set[str], bindable: set[str]) -> None:
    if not first or not second:
        level.bound |= (first | second) & bindable
    for a, b in ((a, b) for a in first for b in second):
        level.joined += [(x, y) for x, y in ((a, b), (b, a)) if y in bindable]


def _note(condition: ast.Node | None, level: Level, bindable: set[str]) -> None:
    """What must hold for every row: add what it binds, and what it joins."""
    for part in _conjuncts(condition):
        level.bound |= _binds(part, level) & bindable
        for left, right in _equal(part):
            a, b = level.owner(left), level.owner(right)
            if a and b:
                _join(level, {a}, {b}, bindable)
    # Two tables whose namespaces both equal one parameter are joined on it.
    by_parameter: dict[int, set[str]] = {}
    for part in _conjuncts(condition):
        for left, right in [pair for sides in _equal(part) for pair in (sides, sides[::-1])]:
            if (alias := level.owner(left)) and isinstance(right := _bare(right), ast.ParamRef):
                by_parameter.setdefault(right.number, set()).add(alias)
    for aliases in by_parameter.values():
        level.joined += [(a, b) for a in aliases for b in aliases if b in bindable]


def _binds(node: object, level: Level) -> set[str]:
    """The tables of ours whose namespace this condition compares with what is given."""
    if isinstance(node, ast.BoolExpr):
        if node.boolop == BoolExprType.OR_EXPR:
            return set.intersection(*(_binds(part, level) for part in node.args))
        if node.boolop == BoolExprType.AND_EXPR:
            below, above = (
                {alias for part in node.args if (alias := _bounded(part, level, operators))}
                for operators in (("<", "<="), (">", ">="))
            )
            return set.union(below & above, *(_binds(part, level) for part in node.args))
    found = set()
    for left, right in _equal(node):
        for one, other in ((left, right), (right, left)):
            if (alias := level.owner(_bare(one))) and level.given(other):
                found.add(alias)
    return found


def _bounded(node: object, level: Level, operators: tuple[str, ...]) -> str | None:
    if isinstance(node, ast.A_Expr) and node.name[0].sval in operators and level.given(node.rexpr):
        return level.owner(node.lexpr)
    return None


def _equal(node: object) -> Iterator[tuple[object, object]]:
    """The pairs that this condition makes equal, row by row of a row; of IN and ANY, with all of the list."""
    if isinstance(node, ast.A_Expr) and node.name[0].sval == "=":
        if node.kind in (A_Expr_Kind.AEXPR_OP, A_Expr_Kind.AEXPR_IN, A_Expr_Kind.AEXPR_OP_ANY):
            if isinstance(node.lexpr, ast.RowExpr) and isinstance(node.rexpr, ast.RowExpr):
                yield from zip(node.lexpr.args, node.rexpr.args, strict=True)
            else:
                yield node.lexpr, node.rexpr
    elif isinstance(node, ast.SubLink) and node.subLinkType == SubLinkType.ANY_SUBLINK and not node.operName:
        tested = node.testexpr.args if isinstance(node.testexpr, ast.RowExpr) else [node.testexpr]
        yield from ((each, None) for each in tested)  # the subselect is checked for itself


def _conjuncts(node: object) -> list[object]:
    if isinstance(node, ast.BoolExpr) and node.boolop == BoolExprType.AND_EXPR:
        return [node, *(part for arg in node.args for part in _conjuncts(arg))]
    return [] if node is None else [node]


def _bare(node: object) -> object:
    return _bare(node.arg) if isinstance(node, ast.TypeCast | ast.CollateClause) else node


def _check_columns(names: Iterable[str | None], relation: ast.RangeVar, faults: list[str]) -> None:
    if relation.relname in OURS and NAMESPACE not in set(names):
        faults.append(f"{relation.relname}: no namespace among the columns")


def _check_assignments(
    targets: Iterable[ast.ResTarget] | None, relation: ast.RangeVar, faults: list[str]
) -> None:
    if relation.relname in OURS and NAMESPACE in {target.name for target in targets or ()}:
        faults.append(f"{relation.relname}: moves rows to another namespace")


def _children(node: object) -> Iterator[object]:
    if isinstance(node, tuple):
        yield from node
    elif isinstance(node, ast.Node):
        yield from (getattr(node, name) for name in node)


def _walk(node: object) -> Iterator[object]:
    yield node
    for child in _children(node):
        yield from _walk(child)


def _within(node: object) -> Iterator[ast.Node]:
    """The statements directly inside this one: of WITH, FROM, UNION, and those in expressions."""
    for child in _children(node):
        if isinstance(child, ast.SelectStmt | ast.InsertStmt | ast.UpdateStmt | ast.DeleteStmt):
            yield child
        else:
            yield from _within(child)


# What is promised.


def test_every_table_has_a_namespace_or_a_reason() -> None:
    assert {"memory", "memory_version", "operation_batch"} <= OURS
    assert _tables().keys() - OURS == WITHOUT_NAMESPACE


def test_every_unique_key_begins_with_the_namespace(dsn: str) -> None:
    """Read from the catalog of a migrated database, so that no way of declaring one goes by."""
    look = """
        SELECT indrelid::regclass::text, indexrelid::regclass::text, attname = 'namespace'
        FROM pg_index JOIN pg_class AS t ON t.oid = indrelid
        LEFT JOIN pg_attribute AS a ON attrelid = indrelid AND attnum = indkey[0]
        WHERE relnamespace = 'memgraph_plugin'::regnamespace AND (indisunique OR indisexclusion)
            AND NOT t.relispartition AND relname <> ALL(%s)
    """
    with psycopg.connect(dsn) as conn:
        found = conn.execute(look, [list(WITHOUT_NAMESPACE)]).fetchall()
        foreign = conn.execute(
            "SELECT conrelid::regclass::text, conname, attname FROM pg_constraint "
            "LEFT JOIN pg_attribute ON attrelid = conrelid AND attnum = conkey[1] AND attname = 'namespace' "
            "WHERE contype = 'f' AND connamespace = 'memgraph_plugin'::regnamespace"
        ).fetchall()
    assert len(found) >= 4
    assert [(table, key) for table, key, first in found if not first] == []
    assert [(table, key) for table, key, first in foreign if first is None] == []


@pytest.mark.parametrize(
    ("name", "scope", "text"), [pytest.param(*each, id="-".join(each[:2])) for each in _statements()]
)
def test_every_statement_keeps_to_its_namespace(name: str, scope: str, text: str) -> None:
    if name in ACROSS or scope.partition(",")[0] in ACROSS:
        assert unbound(text), f"{name} no longer goes across namespaces: take it off the list"
    else:
        assert unbound(text) == []


def test_psycopg_remembers_every_statement() -> None:
    """It parses one of more than 4,096 bytes anew at each call. Names of schemas are rarely so long.

    Not `recall_indexed`, which has more to say, and to do.
    """
    for name, layout in product(_QUERIES.keys() - SCOPES - INDEXED_SCOPES - {"recall_indexed"}, LAYOUTS):
        for scope in _scopes(name):
            text = query(name, "a_schema_with_quite_a_long_name", scope, layout)
            assert len(text.encode()) <= _queries.MAX_CACHED_STATEMENT_LENGTH, name


def test_functions_of_the_schema_read_no_table() -> None:
    """Their bodies, which this file does not read otherwise."""
    for raw in parse_sql(SCHEMA):
        if isinstance(raw.stmt, ast.CreateFunctionStmt | ast.DoStmt):
            assert [p for p in _walk(raw.stmt) if isinstance(p, ast.RangeVar) and p.relname in OURS] == []
            bodies = " ".join(p.sval for p in _walk(raw.stmt) if isinstance(p, ast.String))
            assert not re.search(rf"\b(FROM|JOIN|INTO|UPDATE)\s+({'|'.join(OURS)})\b", bodies, re.IGNORECASE)


FORGETFUL = (
    "SELECT key FROM memory",
    "SELECT key FROM s.memory WHERE key = $1",
    "SELECT key FROM memory WHERE namespace <> $1",
    "SELECT key FROM memory WHERE namespace LIKE $1",
    "SELECT key FROM memory WHERE NOT (namespace = $1)",
    "SELECT key FROM memory WHERE namespace = $1 OR key = $2",
    "SELECT key FROM memory WHERE namespace > $1",
    "SELECT key FROM memory WHERE namespace = session",
    "SELECT key FROM memory WHERE namespace = memory.namespace",
    "SELECT key FROM memory AS m WHERE m.key IN (SELECT key FROM memory_version WHERE namespace = $1)",
    "SELECT 1 WHERE EXISTS (SELECT FROM memory WHERE key = $1)",
    "SELECT (SELECT max(version) FROM memory_version WHERE key = $1)",
    "SELECT 1 FROM memory m JOIN memory_version v USING (key) WHERE m.namespace = $1",
    "SELECT 1 FROM memory m JOIN memory_version v USING (key) WHERE m.namespace = $1 AND v.namespace = $2",
    "SELECT 1 FROM memory m LEFT JOIN memory_version v ON v.namespace = m.namespace AND m.namespace = $1",
    "SELECT 1 FROM memory m JOIN memory_version v ON v.namespace = m.namespace",
    "SELECT key FROM memory WHERE namespace = $1 UNION SELECT key FROM memory_version",
    "WITH top AS (SELECT ctid FROM memory WHERE namespace = $1) SELECT key FROM top JOIN memory USING (ctid)",
    "WITH memory_version AS (SELECT 1) SELECT key FROM s.memory_version",
    "WITH gone AS (DELETE FROM memory WHERE key = $1 RETURNING key) SELECT key FROM gone",
    "DELETE FROM memory WHERE key = $1",
    "DELETE FROM memory USING memory_version v WHERE memory.key = v.key AND v.namespace = $1",
    "UPDATE memory SET key = $1 WHERE key = $2",
    "UPDATE memory SET namespace = $1 WHERE namespace = $2",
    "UPDATE memory SET key = $1 FROM unnest($2::text[]) AS wanted (namespace)",
    "INSERT INTO memory (key) VALUES ($1)",
    "INSERT INTO memory VALUES ($1)",
    "INSERT INTO memory (namespace, key) SELECT namespace, key FROM memory_version",
    "INSERT INTO memory (namespace, key) VALUES ($1, $2) ON CONFLICT (key) DO NOTHING",
    "INSERT INTO memory (namespace) VALUES ($1) ON CONFLICT (namespace) DO UPDATE SET namespace = $1",
    "COPY memory TO STDOUT",
    "COPY memory (key) FROM STDIN",
    "COPY (SELECT key FROM memory) TO STDOUT",
    "TRUNCATE memory",
    "MERGE INTO memory USING memory_version v ON memory.key = v.key WHEN MATCHED THEN DELETE",
)


@pytest.mark.parametrize("text", FORGETFUL)
def test_a_statement_that_forgets_the_namespace_is_found(text: str) -> None:
    assert unbound(text)


@pytest.mark.parametrize(
    "text",
    [
        "SELECT key FROM memory WHERE namespace = $1 AND (key = $2 OR key = $3)",
        "SELECT key FROM memory WHERE (namespace, key) = ($1, $2)",
        "SELECT 1 FROM memory WHERE (namespace, key) IN ("
        "SELECT namespace, key FROM memory m WHERE m.namespace = $1)",
        "SELECT key FROM memory WHERE namespace = ANY($1::text[])",
        "SELECT key FROM memory WHERE namespace = $1 OR (namespace > $1 || '.' AND namespace < $1 || '/')",
        "SELECT 1 FROM memory m LEFT JOIN memory_version v USING (namespace) WHERE m.namespace = $1",
        "SELECT 1 FROM memory m JOIN memory_version v USING (namespace, key) WHERE namespace = $1",
        "SELECT 1 FROM memory m, memory_version v WHERE m.namespace = $1 AND v.namespace = $1",
        "SELECT 1 FROM memory JOIN unnest($1::text[]) AS wanted (namespace) USING (namespace)",
        "SELECT 1 FROM memory m WHERE namespace = $1 AND EXISTS ("
        "SELECT FROM memory_version v WHERE v.namespace = m.namespace)",
        "WITH memory AS (SELECT 1 AS key) SELECT key FROM memory",
        "DELETE FROM memory USING memory_version v WHERE memory.namespace = v.namespace AND v.namespace = $1",
        "SELECT count(*) FROM pg_ts_config",
    ],
)
def test_a_statement_that_keeps_to_its_namespace_is_let_pass(text: str) -> None:
    assert unbound(text) == []
