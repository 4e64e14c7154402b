-- Vectors of another model, or those that are missing. Of all namespaces: a model makes them all.

-- name: await_model
-- Note which model is to follow; what was made for another one is of no use.
WITH changed AS (
    UPDATE {schema}.embedding_model SET next_name = %(name)s, next_dimension = %(dimension)s
    WHERE (next_name, next_dimension) IS DISTINCT FROM (%(name)s::text, %(dimension)s::integer) RETURNING only_row
)
DELETE FROM {schema}.embedding_next WHERE EXISTS (SELECT FROM changed)

-- name: next_model
SELECT next_name AS name, next_dimension AS dimension FROM {schema}.embedding_model

-- name: count_next
-- Texts in all, and those of them whose next vector is there.
SELECT count(*) AS total, count(made.version) AS done
FROM {schema}.memory LEFT JOIN {schema}.embedding_next AS made USING (namespace, key, version)
WHERE {said}

-- name: count_vectors
SELECT count(*) AS total, count(embedding) AS done FROM {schema}.memory WHERE {said}

-- name: texts_without_next
-- A page of texts whose next vector is missing, or was made of an older version.
SELECT namespace, key, version, text, value
FROM {schema}.memory LEFT JOIN {schema}.embedding_next AS made USING (namespace, key, version)
WHERE made.namespace IS NULL AND {said} AND (namespace, key) > (%(namespace)s::text, %(key)s::text)
ORDER BY namespace, key LIMIT %(limit)s

-- name: texts_without_vector
SELECT namespace, key, version, text, value FROM {schema}.memory
WHERE embedding IS NULL AND {said} AND (namespace, key) > (%(namespace)s::text, %(key)s::text)
ORDER BY namespace, key LIMIT %(limit)s

-- name: keep_next
-- A next vector, unless the memory has changed since its text was read.
INSERT INTO {schema}.embedding_next (namespace, key, version, embedding)
SELECT namespace, key, version, %(vector)b::{vector_type} FROM {schema}.memory
WHERE namespace = %(namespace)s AND key = %(key)s AND version = %(version)s FOR KEY SHARE
ON CONFLICT (namespace, key) DO UPDATE SET version = excluded.version, embedding = excluded.embedding

-- name: fill_vector
-- A vector that was missing, unless the memory or the model has changed since its text was read.
UPDATE {schema}.memory SET embedding = %(vector)b::{vector_type}
WHERE namespace = %(namespace)s AND key = %(key)s AND version = %(version)s AND embedding IS NULL
    AND %(vector)b::{vector_type} IS NOT NULL
    AND EXISTS (SELECT FROM {schema}.embedding_model WHERE name = %(name)s AND dimension = %(dimension)s)

-- name: vector_indexes
-- Indexes of vectors: each is for one dimension, and slow to keep current while all vectors change.
SELECT indexes.relname AS name, pg_get_indexdef(indexes.oid) AS definition
FROM pg_index JOIN pg_class AS indexes ON indexes.oid = indexrelid JOIN pg_am ON pg_am.oid = indexes.relam
    JOIN pg_namespace ON pg_namespace.oid = indexes.relnamespace
WHERE nspname = %(schema)s AND amname IN ('hnsw', 'ivfflat') AND NOT indexes.relispartition

-- name: hold_writers
-- Who writes, waits: one that has begun is waited for, one that begins reads the model after it. Readers go on.
LOCK TABLE {schema}.operation_batch, {schema}.memory IN SHARE ROW EXCLUSIVE MODE

-- name: drop_other_vectors
UPDATE {schema}.memory SET embedding = NULL
WHERE embedding IS NOT NULL AND NOT EXISTS (
    SELECT FROM {schema}.embedding_next AS made
    WHERE made.namespace = memory.namespace AND made.key = memory.key AND made.version = memory.version)

-- name: take_next_vectors
UPDATE {schema}.memory SET embedding = made.embedding
FROM {schema}.embedding_next AS made
WHERE made.namespace = memory.namespace AND made.key = memory.key AND made.version = memory.version

-- name: take_next_model
UPDATE {schema}.embedding_model SET name = next_name, dimension = next_dimension, next_name = NULL, next_dimension = NULL

-- name: forget_next_vectors
TRUNCATE {schema}.embedding_next
