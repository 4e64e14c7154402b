"""What an application's role may do: the rights it needs, and the tenant that it is bound to, if any.

Row-level security keeps a statement to the namespace that it is about; a role's tenant keeps everything that
the role does, whatever SQL it sends, to one namespace and those below it. Neither binds superusers and roles
with BYPASSRLS; an owner is bound, but could free itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import LiteralString

import psycopg
from psycopg import sql

from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.store.connection import checked_conninfo, translated
from memgraph_plugin.store.storable import check_namespace
from memgraph_plugin.types import Namespace

RIGHTS: dict[str, LiteralString] = {
    "migration": "SELECT",
    # never UPDATE: what was said stands, or is gone
    "memory_version": "SELECT, INSERT, DELETE",
    "kv_part": "SELECT, INSERT, DELETE",
}
"""What a role needs of some tables; of the others, `_rights` says."""


@dataclass(frozen=True, slots=True)
class Guard:
    """How a table of memories stands to a role. `missing` are rights that it lacks."""

    table: str
    enforced: bool
    missing: tuple[str, ...]


def grant(conninfo: str, schema: str, role: str, tenant: Namespace | None = None) -> None:
    """Give an application's role what the store needs, and no more; with `tenant`, bind it to that namespace.

    Granting again does no harm; a `tenant` given again replaces the one before. Connect as the tables' owner.

    Raises:
        ConfigurationError: there is no such role, or row-level security would not bind it.
        InvalidNamespaceError: the tenant is no namespace.
        StoreError: the rights cannot be granted.
    """
    if tenant is not None:
        check_namespace(tenant)
    with translated(), psycopg.connect(checked_conninfo(conninfo)) as conn:
        _check_owner(conn, schema)
        _check_role(conn, schema, role)
        if tenant is not None:
            # First: it locks the tables. A grant before it would stop an autovacuum that holds such a lock.
            _bind(conn, schema, role, tenant)
        _grant(conn, schema, role)


def grant_again(conn: psycopg.Connection, schema: str) -> None:
    """Give every role that may write memories its rights on tables that are new, in this transaction."""
    found = conn.execute(
        "SELECT DISTINCT rolname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
        "CROSS JOIN aclexplode(relacl) JOIN pg_roles r ON r.oid = grantee "
        "WHERE nspname = %s AND relname IN ('memory', 'memory_version') "
        "AND privilege_type = 'INSERT' AND grantee <> relowner",
        [schema],
    ).fetchall()
    for (role,) in found:
        _grant(conn, schema, role)


def guards(conn: psycopg.Connection, schema: str) -> Iterator[Guard]:
    """Each table with a namespace: whether row-level security is on, and what the current role lacks."""
    for name, enforced, has_namespace in _tables(conn, schema):
        rights = _rights(name, has_namespace).split(", ")
        held = conn.execute(
            "SELECT has_table_privilege(format('%%I.%%I', %s::text, %s::text), r) FROM unnest(%s::text[]) r",
            [schema, name, rights],
        ).fetchall()
        missing = tuple(right for right, (has,) in zip(rights, held, strict=True) if not has)
        yield Guard(name, enforced or not has_namespace, missing)


def tenants(conn: psycopg.Connection, schema: str) -> list[str]:
    """What binds the current role beyond the scope of a transaction: conditions, in SQL."""
    found = conn.execute(
        "SELECT DISTINCT qual FROM pg_policies WHERE schemaname = %s AND permissive = 'RESTRICTIVE' "
        "AND EXISTS (SELECT FROM unnest(roles) r WHERE pg_has_role(r, 'USAGE'))",
        [schema],
    ).fetchall()
    return [qual for (qual,) in found]


def _check_owner(conn: psycopg.Connection, schema: str) -> None:
    """Postgres only warns where a grant does nothing."""
    found = conn.execute(
        "SELECT tableowner FROM pg_tables WHERE schemaname = %s AND NOT pg_has_role(tableowner, 'USAGE')",
        [schema],
    ).fetchone()
    if found is not None:
        raise ConfigurationError(
            f"Only the tables' owner can grant: connect as {found[0]!r}, or a superuser."
        )


def _check_role(conn: psycopg.Connection, schema: str, role: str) -> None:
    found = conn.execute(
        "SELECT rolsuper OR rolbypassrls, EXISTS (SELECT FROM pg_namespace n LEFT JOIN pg_class c "
        "ON relnamespace = n.oid WHERE nspname = %s AND (nspowner = r.oid OR relowner = r.oid)) "
        "FROM pg_roles r WHERE rolname = %s",
        [schema, role],
    ).fetchone()
    name = sql.Identifier(role).as_string()
    if found is None:
        raise ConfigurationError(f"There is no role {role!r}: CREATE ROLE {name} LOGIN PASSWORD '...';")
    if found[0]:
        raise ConfigurationError(
            f"Row-level security does not bind {role!r}: ALTER ROLE {name} NOSUPERUSER NOBYPASSRLS;"
        )
    if found[1]:
        raise ConfigurationError(
            f"{role!r} owns schema {schema!r} or a table of it, and could lift row-level security: "
            "let another role own them and run the migrations."
        )


def _grant(conn: psycopg.Connection, schema: str, role: str) -> None:
    # No default privileges: a later partition could be read past the policies of its table.
    names = {"schema": sql.Identifier(schema), "role": sql.Identifier(role)}
    conn.execute(sql.SQL("GRANT USAGE ON SCHEMA {schema} TO {role}").format(**names))
    for name, _, has_namespace in _tables(conn, schema):
        rights, table = sql.SQL(_rights(name, has_namespace)), sql.Identifier(schema, name)
        statement = sql.SQL("GRANT {rights} ON {table} TO {role}")
        conn.execute(statement.format(rights=rights, table=table, **names))


def _rights(table: str, has_namespace: bool) -> LiteralString:
    return RIGHTS.get(table, "SELECT, INSERT, UPDATE, DELETE" if has_namespace else "SELECT, INSERT")


def _bind(conn: psycopg.Connection, schema: str, role: str, tenant: Namespace) -> None:
    bound = conn.execute(
        "SELECT polname, relname FROM pg_policy JOIN pg_class c ON c.oid = polrelid "
        "JOIN pg_namespace n ON n.oid = relnamespace JOIN pg_roles r ON polroles = ARRAY[r.oid] "
        "WHERE nspname = %s AND rolname = %s AND NOT polpermissive",
        [schema, role],
    ).fetchall()
    for policy, table in bound:
        conn.execute(
            sql.SQL("DROP POLICY {} ON {}").format(sql.Identifier(policy), sql.Identifier(schema, table))
        )
    root = ".".join(tenant)
    # CASE, for the planner's sake: see `guard` in the schema.
    inside = "CASE WHEN namespace = {} OR (namespace > {} AND namespace < {}) THEN true ELSE false END"
    condition = sql.SQL(inside).format(root, f"{root}.", f"{root}/")
    for table, _, has_namespace in _tables(conn, schema):
        if has_namespace:
            conn.execute(
                sql.SQL("CREATE POLICY {} ON {} AS RESTRICTIVE TO {} USING ({})").format(
                    sql.Identifier(f"tenant_{sha256(role.encode()).hexdigest()[:16]}"),
                    sql.Identifier(schema, table),
                    sql.Identifier(role),
                    condition,
                )
            )


def _tables(conn: psycopg.Connection, schema: str) -> list[tuple[str, bool, bool]]:
    """Name, whether row-level security is forced, whether rows have a namespace; partitions are left out."""
    return conn.execute(
        "SELECT relname, relrowsecurity AND relforcerowsecurity, EXISTS (SELECT FROM pg_attribute "
        "WHERE attrelid = c.oid AND attname = 'namespace') FROM pg_class c "
        "JOIN pg_namespace n ON n.oid = relnamespace "
        "WHERE nspname = %s AND relkind IN ('r', 'p') AND NOT relispartition ORDER BY 1",
        [schema],
    ).fetchall()
