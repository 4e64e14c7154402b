-- Sealing what is there, a page at a time. It goes through every namespace, in order.

-- name: memories_to_seal
SELECT namespace, key, version, text, value FROM {schema}.memory
WHERE (namespace, key) > (%(after)s, %(after_key)s) ORDER BY namespace, key LIMIT %(limit)s

-- name: seal_memory
-- A memory that has been changed since it was read was sealed by who changed it.
UPDATE {schema}.memory SET text = %(text)s, value = %(value)s
WHERE namespace = %(namespace)s AND key = %(key)s AND version = %(version)s

-- name: versions_to_seal
SELECT namespace, key, version, text, value, reason FROM {schema}.memory_version
WHERE (namespace, key, version) > (%(after)s, %(after_key)s, %(after_version)s)
ORDER BY namespace, key, version LIMIT %(limit)s

-- name: seal_version
UPDATE {schema}.memory_version SET text = %(text)s, value = %(value)s, reason = %(reason)s
WHERE namespace = %(namespace)s AND key = %(key)s AND version = %(version)s

-- name: batches_to_seal
SELECT namespace, batch_id, receipts FROM {schema}.operation_batch
WHERE (namespace, batch_id) > (%(after)s, %(after_batch)s) ORDER BY namespace, batch_id LIMIT %(limit)s

-- name: seal_batch
UPDATE {schema}.operation_batch SET receipts = %(receipts)s
WHERE namespace = %(namespace)s AND batch_id = %(batch_id)s

-- name: held_to_seal
SELECT namespace, id, operation, reason FROM {schema}.quarantine
WHERE (namespace, id) > (%(after)s, %(after_id)s) ORDER BY namespace, id LIMIT %(limit)s

-- name: seal_held
UPDATE {schema}.quarantine SET operation = %(operation)s, reason = %(reason)s
WHERE namespace = %(namespace)s AND id = %(id)s

-- name: count_to_seal
SELECT (SELECT count(*) FROM {schema}.memory) + (SELECT count(*) FROM {schema}.memory_version)
    + (SELECT count(*) FROM {schema}.operation_batch) + (SELECT count(*) FROM {schema}.quarantine) AS rows

-- name: compressed_to_seal
SELECT namespace, key, header FROM {schema}.kv_memory ORDER BY namespace, key

-- name: parts_to_seal
-- What is sealed begins with the name of its key.
SELECT seq, part, last, sealed, sha256, file, place, size,
    CASE WHEN sealed THEN convert_from(substring(data FOR 256), 'LATIN1') END AS begins
FROM {schema}.kv_part WHERE namespace = %(namespace)s AND key = %(key)s
