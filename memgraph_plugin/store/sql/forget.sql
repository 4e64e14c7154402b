-- Erasing a namespace and all below it.

-- name: one_snapshot
-- Whatever the transaction reads is as it was at its first statement; what changes meanwhile makes it fail.
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ

-- name: tables_with_namespaces
-- Every table of the schema that says whose its rows are, whoever added it.
SELECT c.relname::text AS name, pg_has_role(c.relowner, 'USAGE') AS ours
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace JOIN pg_attribute AS a ON a.attrelid = c.oid
WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    AND a.attname = 'namespace' AND NOT a.attisdropped
ORDER BY c.relname

-- name: writers
-- The transactions at work that have written to such a table, or are about to.
SELECT DISTINCT l.virtualtransaction AS writer
FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND l.mode = 'RowExclusiveLock' AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()
    AND n.nspname = %(schema)s
    AND EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attname = 'namespace')

-- name: no_writers
-- Keep writers away until the transaction ends. All begin with one of these tables.
LOCK TABLE {schema}.operation_batch, {schema}.embedding_next, {schema}.kv_memory, {schema}.quarantine
    IN SHARE ROW EXCLUSIVE MODE

-- name: erase
-- What `prefix` means, also of a column that somebody added in another collation.
WITH gone AS (
    DELETE FROM {relation}
    WHERE namespace = %(namespace)s
        OR (namespace COLLATE "C" > %(namespace)s || '.' AND namespace COLLATE "C" < %(namespace)s || '/')
    RETURNING 1
)
SELECT count(*) AS rows FROM gone

-- name: indexes_that_name
-- Partial indexes whose condition quotes a namespace in scope.
SELECT DISTINCT c.relname::text AS name, pg_has_role(c.relowner, 'USAGE') AS ours
FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
    CROSS JOIN LATERAL regexp_matches(pg_get_expr(i.indpred, i.indrelid), '''((?:[^'']|'''')*)''', 'g') AS quoted
    CROSS JOIN LATERAL (SELECT replace(quoted[1], '''''', '''') COLLATE "C" AS namespace) AS literal
WHERE n.nspname = %(schema)s AND i.indpred IS NOT NULL AND NOT c.relispartition
    AND (literal.namespace = %(namespace)s
        OR (literal.namespace > %(namespace)s || '.' AND literal.namespace < %(namespace)s || '/'))

-- name: forget_terms_above
-- What an index of a namespace above noted of its words; without that, ranking reads more rows.
DELETE FROM {schema}.search_term WHERE below AND starts_with(%(erased)s, namespace || '.')

-- name: forget_samples_above
-- One row is so few that it is all noted anew.
UPDATE {schema}.search_index AS noted SET rows = 1, (sample_namespaces, sample_keys) = (
    SELECT coalesce(array_agg(sample.namespace), '{{}}'), coalesce(array_agg(sample.key), '{{}}')
    FROM unnest(noted.sample_namespaces, noted.sample_keys) AS sample (namespace, key)
    WHERE sample.namespace <> %(erased)s AND NOT starts_with(sample.namespace, %(erased)s || '.'))
WHERE below AND starts_with(%(erased)s, namespace || '.')

-- name: drop_index
DROP INDEX {relation}

-- name: renew_statistics
SELECT {schema}.renew_statistics(array_agg(format('%%I.%%I', %(schema)s::text, name)::regclass))
FROM unnest(%(tables)s::text[]) AS name

-- name: insert_erasure
INSERT INTO {schema}.erasure (id, salt, digest, counts, actor, erased_at)
VALUES (%(id)s::uuid, decode(%(salt)s, 'hex'), decode(%(digest)s, 'hex'), %(counts)s, %(actor)s, clock_timestamp())
RETURNING erased_at

-- name: erasures
SELECT id, encode(salt, 'hex') AS salt, encode(digest, 'hex') AS digest, counts, actor, erased_at
FROM {schema}.erasure ORDER BY erased_at, id

-- name: rewrite_statistics
-- Who does not own the database only gets a warning.
VACUUM (FULL) pg_catalog.pg_statistic

-- name: rewrite
-- The rows that are left, into new files.
VACUUM (FULL, ANALYZE) {relation}
