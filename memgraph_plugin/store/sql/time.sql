-- Reading the past, and the log.

-- name: past
-- Every version that was known in a namespace, each memory's oldest first. Where a text is still that of the row of
-- today, so is its vector (sealed texts are all the same, so there it takes the same version). The
-- newest version expires when the row does, since reading prolongs that.
SELECT v.namespace, v.key, v.version, v.batch_id, v.operation, v.mode, v.reason, v.evidence, v.kind, v.value, v.text,
    v.session, v.position, v.importance, v.source, v.valid_from, v.valid_to, v.language, v.ttl, v.restores, v.recorded_at,
    CASE WHEN m.version = v.version THEN m.expires_at ELSE v.expires_at END AS expires_at, '' AS actor, '' AS policy,
    CASE WHEN m.text = v.text AND (m.text <> '' OR m.version = v.version)
        THEN 1 - (m.embedding <=> {vector}) END AS cosine, now() AS asked_at
FROM {schema}.memory_version AS v LEFT JOIN {schema}.memory AS m USING (namespace, key)
WHERE v.namespace = %(namespace)s AND (%(known_at)s::timestamptz IS NULL OR v.recorded_at <= %(known_at)s)
ORDER BY v.key, v.version

-- name: log
-- The batches of a namespace, the newest first.
SELECT batch_id, receipts, recorded_at, actor, policy FROM {schema}.operation_batch
WHERE namespace = %(namespace)s ORDER BY recorded_at DESC, batch_id LIMIT %(limit)s

-- name: logged_batch
SELECT batch_id, receipts, recorded_at, actor, policy FROM {schema}.operation_batch
WHERE namespace = %(namespace)s AND batch_id = %(batch_id)s::uuid
