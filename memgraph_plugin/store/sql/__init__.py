"""The SQL, by name: statements from the files beside this one, the schema, and its migrations in order."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import LiteralString, NamedTuple

from psycopg import sql

from memgraph_plugin.errors import ConfigurationError

_HERE = files(__package__)


def _named(text: str) -> dict[str, str]:
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)[1:]
    return {name: body.strip() for name, body in zip(parts[::2], parts[1::2], strict=True)}


def _files(folder: Traversable) -> list[Traversable]:
    return sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda f: f.name)


_QUERIES = {
    name: statement
    for file in _files(_HERE)
    if file.name != "schema.sql"
    for name, statement in _named(file.read_text()).items()
}
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
def query(name: str, schema: str, scope: str | Indexed = "exactly") -> LiteralString:
    """The statement of that name, for one schema and one scope of namespaces."""
    if "%" in schema:
        raise ConfigurationError(f"A schema name cannot have a '%': {schema!r}")
    if isinstance(scope, str):
        parts: dict[str, sql.Composable] = {"scope": sql.SQL(_QUERIES[scope])}
    else:
        parts = {
            "namespace": sql.SQL(_literal(scope.namespace).replace("%", "%%")),
            "below": sql.Literal(scope.below),
            "dimension": sql.Literal(scope.dimension),
        }
        covered = "indexed_prefix" if scope.below else "indexed_exactly"
        parts["scope"] = sql.SQL(_QUERIES[covered]).format(**parts)
        parts["rest"] = sql.SQL(_QUERIES["indexed_rest" if scope.rest else "nowhere"]).format(**parts)
    parts |= {part: sql.SQL(_QUERIES[part]) for part in ("visible", "breadth", "fusion")}
    return sql.SQL(_QUERIES[name]).format(schema=sql.Identifier(schema), **parts).as_string()


def predicate(namespace: str, *, below: bool) -> LiteralString:
    """The condition of an index of a namespace; the planner finds it again in the statements' scopes."""
    condition = sql.SQL(_QUERIES["indexed_prefix" if below else "indexed_exactly"])
    return condition.format(namespace=sql.Literal(namespace)).as_string()


def _literal(text: str) -> LiteralString:
    return sql.Literal(text).as_string()
