"""The SQL, by name: statements from the files beside this one, the schema, and its migrations in order."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import LiteralString

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


@cache
def query(name: str, schema: str, scope: str = "exactly") -> LiteralString:
    """The statement of that name, for one schema and one scope of namespaces."""
    if "%" in schema:
        raise ConfigurationError(f"A schema name cannot have a '%': {schema!r}")
    text, condition = sql.SQL(_QUERIES[name]), sql.SQL(_QUERIES[scope])
    return text.format(schema=sql.Identifier(schema), scope=condition).as_string()
