-- What keeps a store in order: sweeping, counting, and finding what is to be deleted.

-- name: sweep_ttl
-- Let go of what has expired, with its history, the oldest first. A row that somebody is writing waits for the
-- next sweep: a sweep holds up nobody. Batches keep their idempotency keys, and lose the reasons that they gave.
WITH expired AS MATERIALIZED (
    SELECT namespace, key FROM {schema}.memory
    WHERE expires_at <= now() ORDER BY expires_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), deleted AS MATERIALIZED (
    SELECT DISTINCT namespace, key FROM (
        SELECT v.namespace, v.key FROM {schema}.memory_version AS v
        WHERE v.operation = 'delete' AND v.expires_at <= now() AND NOT EXISTS (
            SELECT FROM {schema}.memory AS m WHERE m.namespace = v.namespace AND m.key = v.key)
        ORDER BY v.expires_at LIMIT %(limit)s
    ) AS oldest
), gone AS (
    DELETE FROM {schema}.memory AS m USING expired AS e
    WHERE m.namespace = e.namespace AND m.key = e.key
), versions AS (
    DELETE FROM {schema}.memory_version AS v USING (TABLE expired UNION TABLE deleted) AS e
    WHERE v.namespace = e.namespace AND v.key = e.key
    RETURNING v.namespace, v.key, v.batch_id
), receipts AS (
    UPDATE {schema}.operation_batch AS b SET receipts = (
        SELECT jsonb_agg(CASE WHEN receipt ->> 'key' = ANY (keys)
            THEN jsonb_set(receipt, '{{reason}}', '""') ELSE receipt END ORDER BY i)
        FROM jsonb_array_elements(b.receipts) WITH ORDINALITY AS each (receipt, i))
    FROM (SELECT namespace, batch_id, array_agg(key) AS keys FROM versions GROUP BY 1, 2) AS swept
    WHERE b.namespace = swept.namespace AND b.batch_id = swept.batch_id AND b.receipts <> '[]'
)
SELECT (SELECT count(*) FROM expired) AS swept,
    greatest((SELECT count(*) FROM expired), (SELECT count(*) FROM deleted)) AS most

-- name: count
SELECT count(*) FROM {schema}.memory WHERE {scope} AND (expires_at IS NULL OR expires_at > now())

-- name: keys_after
-- The next memories in scope, in order, after one of them.
SELECT namespace, key FROM {schema}.memory
WHERE {scope} AND (expires_at IS NULL OR expires_at > now())
    AND (namespace, key) > (%(after_namespace)s, %(after_key)s)
ORDER BY namespace, key LIMIT %(limit)s
