"""The SQL, by name: statements from the files beside this one, the schema, and its migrations in order."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import LiteralString

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


@cache
def query(name: str, schema: str, scope: str = "exactly", layout: Layout = Layout()) -> LiteralString:  # noqa: B008
    """The statement of that name, for one schema, one scope of namespaces and one layout of the tables."""
    if "%" in schema:
        raise ConfigurationError(f"A schema name cannot have a '%': {schema!r}")
    known = {
        "schema": sql.Identifier(schema),
        "scope": sql.SQL(_QUERIES[scope]),
        "vector_type": sql.SQL(layout.vector_type),
    }
    rows = "part_" if layout.partitions else ""
    pieces = {"vector": "query_vector", "row": f"{rows}row", "that_row": f"that_{rows}row", "said": "said"}
    for piece, text in pieces.items():
        known[piece] = sql.SQL(_PIECES[text]).format(**known)
    return sql.SQL(_QUERIES[name]).format(**known).as_string()
