"""What a transaction may see where row-level security binds: pure, for both colours of the Postgres store.

Postgres hides every row whose namespace is outside of the setting `memgraph_plugin.scope`: a namespace with
those below it, "." for all of them, "" for none. The store sets it in each transaction, and only there, so
that connections can be shared, by a PgBouncer too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any, LiteralString

from psycopg.types.json import Jsonb

SET_SCOPE: LiteralString = "SELECT set_config('memgraph_plugin.scope', %s, true)"

EVERYTHING = "."
"""The scope of all namespaces; none is called so, since a label is never empty."""

CHUNK = 1_000
"""Rows in one statement."""


def scope_of(parameters: Mapping[str, Any], scope: object) -> str | None:
    """What a statement is about, by its parameters: one `namespace` or prefix, or what `namespaces` share.

    None where they name none: it sees what its transaction does, alone nothing, unless it is `everywhere`.
    """
    if scope == "everywhere":
        return EVERYTHING
    if (namespace := parameters.get("namespace")) is not None:
        return str(namespace)
    if not (namespaces := parameters.get("namespaces")):
        return None
    depths = zip(*(namespace.split(".") for namespace in namespaces), strict=False)
    shared = takewhile(lambda labels: len(set(labels)) == 1, depths)
    return ".".join(labels[0] for labels in shared) or EVERYTHING


def insert_instead(copy: str, types: Sequence[str]) -> bytes:
    """The INSERT that does what a binary COPY does, with one array a column in place of rows."""
    found = re.match(r"COPY (.+\)) FROM STDIN", copy, re.DOTALL)
    assert found is not None, copy  # noqa: S101 - it is one of ours
    names = [f"c{i}" for i in range(len(types))]
    # Arrays of arrays would be taken apart to the last item: they come as JSON.
    given = ["jsonb" if each == "text[]" else each for each in types]
    taken = [
        f"ARRAY(SELECT jsonb_array_elements_text({name}))" if each == "text[]" else name
        for name, each in zip(names, types, strict=True)
    ]
    arrays = ", ".join(f"%b::{each}[]" for each in given)
    rows = f"SELECT {', '.join(taken)} FROM unnest({arrays}) AS rows ({', '.join(names)})"  # noqa: S608 - nothing given
    return f"INSERT INTO {found[1]} {rows}".encode()


def columns(rows: Iterable[Sequence[Any]], types: Sequence[str]) -> Iterator[list[list[Any]]]:
    """The parameters of `insert_instead`, for some of the rows at a time."""
    rows = list(rows)
    for start in range(0, len(rows), CHUNK):
        chunk = zip(*rows[start : start + CHUNK], strict=True)
        yield [
            [Jsonb(value) for value in column] if each == "text[]" else list(column)
            for column, each in zip(chunk, types, strict=True)
        ]
