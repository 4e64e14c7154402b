"""The SQL, by name: statements from the files beside this one, the schema, and its migrations in order."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import LiteralString, NamedTuple

from psycopg import sql

from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.store.layout import Layout

_HERE = files(__package__)


def _named(text: str) -> dict[str, str]:
    """Without comments and indents: pieces stand in the middle of lines, and psycopg forgets long texts."""
    text = re.sub(r"^ *(-- (?!name:).*\n)?", "", text, flags=re.MULTILINE)
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)[1:]
    return {name: body.strip() for name, body in zip(parts[::2], parts[1::2], strict=True)}


def _files(folder: Traversable) -> list[Traversable]:
    return sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda f: f.name)


_QUERIES = {
    name: statement
    for file in _files(_HERE)
    if file.name not in ("schema.sql", "pieces.sql")
    for name, statement in _named(file.read_text()).items()
}
_PIECES = _named((_HERE / "pieces.sql").read_text())
SCHEMA = (_HERE / "schema.sql").read_text()
MIGRATIONS = {int(file.name[:4]): file.read_text() for file in _files(_HERE / "migrations")}


class Indexed(NamedTuple):
    """A scope with an index of its own: its statements name the namespace as a literal.

    `below`: the index is also of what lies below; `rest`: it is not, and what lies below is wanted beside it.
    """

    namespace: str
    below: bool
    rest: bool
    dimension: int


@cache
def query(
    name: str,
    schema: str,
    scope: str | Indexed = "exactly",
    layout: Layout = Layout(),  # noqa: B008
    relation: str = "",
) -> LiteralString:
    """The statement of that name, for one schema, scope and layout; where it is of any relation, of one."""
    if "%" in schema:
        raise ConfigurationError(f"A schema name cannot have a '%': {schema!r}")
    known = {
        "schema": sql.Identifier(schema),
        "relation": sql.Identifier(schema, relation.replace("%", "%%")),
        "vector_type": sql.SQL(layout.vector_type),
        **_scope(scope),
    }
    rows = "part_" if layout.partitions else ""
    pieces = {"vector": "query_vector", "row": f"{rows}row", "that_row": f"that_{rows}row"}
    pieces |= {piece: piece for piece in ("said", "visible", "breadth", "fusion")}
    for piece, text in pieces.items():
        known[piece] = sql.SQL(_PIECES[text]).format(**known)
    return sql.SQL(_QUERIES[name]).format(**known).as_string()


def _scope(scope: str | Indexed) -> dict[str, sql.Composable]:
    if isinstance(scope, str):
        return {"scope": sql.SQL(_QUERIES[scope])}
    named: dict[str, sql.Composable] = {
        "namespace": sql.SQL(_literal(scope.namespace).replace("%", "%%")),
        "below": sql.Literal(scope.below),
        "dimension": sql.Literal(scope.dimension),
    }
    conditions = {
        "scope": "indexed_prefix" if scope.below else "indexed_exactly",
        "rest": "indexed_rest" if scope.rest else "nowhere",
    }
    return named | {part: sql.SQL(_QUERIES[name]).format(**named) for part, name in conditions.items()}


def predicate(namespace: str, *, below: bool) -> LiteralString:
    """The condition of an index of a namespace; the planner finds it again in the statements' scopes."""
    condition = sql.SQL(_QUERIES["indexed_prefix" if below else "indexed_exactly"])
    return condition.format(namespace=sql.Literal(namespace)).as_string()


def _literal(text: str) -> LiteralString:
    return sql.Literal(text).as_string()
