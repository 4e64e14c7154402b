-- Exports and imports.

-- name: memory_without_version
SELECT namespace, key FROM {schema}.memory AS m
WHERE {scope} AND NOT EXISTS (
    SELECT FROM {schema}.memory_version AS v
    WHERE v.namespace = m.namespace AND v.key = m.key AND v.version = m.version)
LIMIT 1

-- name: exported_batches
SELECT namespace, batch_id, idempotency_key, actor, policy, receipts, recorded_at
FROM {schema}.operation_batch WHERE {scope} ORDER BY namespace, batch_id

-- name: exported_quarantine
SELECT namespace, id, operation, code, reason, policy, recorded_at
FROM {schema}.quarantine WHERE {scope} ORDER BY namespace, id

-- name: exported_versions
-- Every version, the newest with what its memory is beyond it.
SELECT namespace, key, version, line.batch_id, line.operation, line.mode, line.reason, line.evidence, line.kind,
    line.value, line.text, line.session, line.position, line.importance, line.source, line.valid_from, line.valid_to,
    line.expires_at, line.language, line.ttl, line.restores, line.recorded_at, m.language AS current_language, m.ttl AS current_ttl, m.valid_to AS current_valid_to,
    m.created_at AS current_created_at, m.expires_at AS current_expires_at,
    CASE WHEN %(vectors)s THEN substring(halfvec_send(m.embedding::halfvec) FROM 5) END AS vector -- less its header
FROM {schema}.memory_version AS line LEFT JOIN {schema}.memory AS m USING (namespace, key, version)
WHERE {scope} ORDER BY namespace, key, version

-- name: namespaces_held
-- Which of these namespaces there is anything of.
SELECT asked.namespace FROM unnest(%(asked)s::text[]) AS asked (namespace)
WHERE EXISTS (SELECT FROM {schema}.operation_batch AS b WHERE b.namespace = asked.namespace)
    OR EXISTS (SELECT FROM {schema}.memory_version AS v WHERE v.namespace = asked.namespace)
    OR EXISTS (SELECT FROM {schema}.memory AS m WHERE m.namespace = asked.namespace)
    OR EXISTS (SELECT FROM {schema}.quarantine AS q WHERE q.namespace = asked.namespace)

-- name: version_without_batch
SELECT v.namespace, v.key FROM {schema}.memory_version AS v
WHERE v.namespace = ANY(%(asked)s) AND NOT EXISTS (
    SELECT FROM {schema}.operation_batch AS b WHERE b.namespace = v.namespace AND b.batch_id = v.batch_id)
LIMIT 1

-- name: copy_batch
COPY {schema}.operation_batch (namespace, batch_id, idempotency_key, actor, policy, receipts,
    recorded_at) FROM STDIN (FORMAT BINARY)
