-- Copying the table of LangGraph's PostgresStore, which is in another database, or another schema of this one.

-- name: known_keys
-- Of some keys, those that were ever written here, and when last; no time where they were deleted here.
SELECT key, memory.updated_at FROM (
    SELECT DISTINCT namespace, key FROM {schema}.memory_version
    WHERE namespace = %(namespace)s AND key = ANY (%(keys)s)
) AS known LEFT JOIN {schema}.memory USING (namespace, key)

-- name: keep_times
UPDATE {schema}.memory SET created_at = %s, updated_at = %s, expires_at = %s, ttl = %s WHERE namespace = %s AND key = %s

-- name: langgraph_table
-- For the other database: whether the table is there. `{schema}` is the schema it is in.
SELECT to_regclass('{schema}.store') IS NOT NULL AS present

-- name: langgraph_count
SELECT count(*) FROM {schema}.store

-- name: langgraph_items
-- The next items after one of them. The value as text: one that cannot be read must not stop the others.
SELECT prefix, key, value::text AS value, coalesce(updated_at, created_at) AS updated_at,
    coalesce(created_at, updated_at) AS created_at, expires_at, ttl_minutes,
    coalesce(expires_at <= now(), false) AS expired
FROM {schema}.store
WHERE %(prefix)s::text IS NULL OR (prefix, key) > (%(prefix)s::text, %(key)s::text)
ORDER BY prefix, key LIMIT %(limit)s
