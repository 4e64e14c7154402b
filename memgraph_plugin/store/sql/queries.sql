-- What the stores send, each by its name. `{schema}` is the schema; `{scope}` is one of the three conditions below.

-- name: exactly
namespace = %(namespace)s

-- name: prefix
-- The row of the prefix itself, and every namespace below it: '/' is the character after '.'.
(namespace = %(namespace)s OR (namespace > %(namespace)s || '.' AND namespace < %(namespace)s || '/'))

-- name: everywhere
true

-- name: recall
-- BM25 and cosine of every row in scope, as z-scores, summed; the best lift their neighbours. One round trip.
-- Of what a planner without statistics takes for a few rows it makes nested loops, which take a minute at 20,000 rows.
-- It cannot do so of a FULL JOIN, where a LEFT JOIN would be meant: the right side has no rows of its own, or loses them.
WITH query AS MATERIALIZED (
    SELECT ordinal, ('''' || replace(replace(lexeme, '\', '\\'), '''', '''''') || '''')::tsquery AS term
    FROM unnest(tsvector_to_array({schema}.search_vector(%(language)s, %(query)s)))
        WITH ORDINALITY AS lexemes (lexeme, ordinal)
), rows AS MATERIALIZED (
    SELECT {row} AS id, position, terms, length(terms)::float8 AS length,
        CASE WHEN session IS NOT NULL THEN hashtextextended(session, hashtext(namespace)) END AS session,
        1 - (embedding <=> {vector}) AS cosine
    FROM {schema}.memory
    WHERE {scope} AND (text <> '' OR embedding IS NOT NULL) -- a sealed memory has no text
        AND (expires_at IS NULL OR expires_at > now()) AND (valid_to IS NULL OR valid_to > now())
        AND (%(kinds)s::text[] IS NULL OR kind = ANY(%(kinds)s))
        AND (%(path)s::jsonpath IS NULL OR jsonb_path_exists(value, %(path)s, %(vars)s, true))
), seen AS MATERIALIZED (
    SELECT count(*)::float8 AS n, avg(length) AS mean_length,
        avg(cosine) AS cosine_mean, 1 / nullif(stddev_pop(cosine), 0) AS cosine_scale
    FROM rows
), match AS MATERIALIZED (
    -- ts_rank of one term with unit weights is the sum of 1/i^2 for i = 1..tf over that of all i: solved for tf.
    SELECT id, ordinal, length, round(1 / (1.6449340668482264::float8
        * (1::float8 - ts_rank(ARRAY[1, 1, 1, 1]::real[], terms, term))) - 0.5::float8) AS tf
    FROM (
        SELECT * FROM rows WHERE terms @@ (SELECT string_agg(term::text, ' | ')::tsquery FROM query)
    ) AS some_term CROSS JOIN query
    WHERE terms @@ term
), weight AS MATERIALIZED (
    SELECT ordinal, mean_length, ln(1 + (n - df + 0.5::float8) / (df + 0.5::float8)) AS idf
    FROM seen, (SELECT ordinal, count(*)::float8 AS df FROM match GROUP BY ordinal) AS frequency
), words AS MATERIALIZED (
    -- k1 = 1.2, b = 0.75
    SELECT id, sum(idf * tf * 2.2::float8 / (tf + 0.3::float8 + 0.9::float8 * length / mean_length)) AS bm25
    FROM match JOIN weight USING (ordinal) GROUP BY id
), words_seen AS MATERIALIZED (
    SELECT sum(bm25) / n AS bm25_mean,
        1 / nullif(sqrt(greatest(sum(bm25 * bm25) / n - (sum(bm25) / n) ^ 2, 0)), 0) AS bm25_scale
    FROM seen LEFT JOIN words ON true GROUP BY n
), fused AS MATERIALIZED (
    SELECT id, session, position, cosine, bm25,
        coalesce((cosine - cosine_mean) * cosine_scale, 0)
        + coalesce((coalesce(bm25, 0) - bm25_mean) * bm25_scale, 0) AS z
    FROM rows FULL JOIN words USING (id) CROSS JOIN seen CROSS JOIN words_seen
), lifted AS (
    SELECT session, position + distance AS position, sum(z * share) AS lift
    FROM (
        SELECT session, position, z FROM fused
        WHERE z > 0 ORDER BY z DESC LIMIT 100
    ) AS lifting CROSS JOIN (
        VALUES (-2, 0.15::float8), (-1, 0.40::float8), (1, 0.40::float8), (2, 0.15::float8)
    ) AS neighbour (distance, share)
    GROUP BY 1, 2
), top AS (
    SELECT id, cosine, bm25, z + coalesce(lift, 0) AS score
    FROM (SELECT * FROM fused FULL JOIN lifted USING (session, position) OFFSET 0) AS joined
    -- Without a vector, it takes a word of the query, or a neighbour that has one.
    WHERE cosine IS NOT NULL OR bm25 IS NOT NULL OR z + lift > 0
    ORDER BY score DESC FETCH FIRST (%(limit)s::bigint + %(offset)s::bigint) ROWS WITH TIES
)
SELECT namespace, key, kind, version, value, text, tokens, session, position, importance, source,
    valid_from, valid_to, created_at, updated_at, expires_at, score, cosine, bm25
FROM top JOIN {schema}.memory ON {that_row}
ORDER BY score DESC, key LIMIT %(limit)s OFFSET %(offset)s

-- name: latest
-- Rows in scope, the most recently changed first.
SELECT namespace, key, kind, version, value, text, tokens, session, position, importance, source,
    valid_from, valid_to, created_at, updated_at, expires_at
FROM {schema}.memory
WHERE {scope}
    AND (expires_at IS NULL OR expires_at > now()) AND (valid_to IS NULL OR valid_to > now())
    AND (%(kinds)s::text[] IS NULL OR kind = ANY(%(kinds)s))
    AND (%(path)s::jsonpath IS NULL OR jsonb_path_exists(value, %(path)s, %(vars)s, true))
ORDER BY updated_at DESC, namespace, key LIMIT %(limit)s OFFSET %(offset)s

-- name: get
-- Current rows by namespace and key, pairwise.
SELECT namespace, key, kind, version, value, text, tokens, session, position, importance, source,
    valid_from, valid_to, created_at, updated_at, expires_at
FROM {schema}.memory JOIN unnest(%(namespaces)s::text[], %(keys)s::text[]) AS wanted (namespace, key) USING (namespace, key)
WHERE expires_at IS NULL OR expires_at > now()

-- name: list_namespaces
-- Every namespace that holds a memory, cut to a depth, by label patterns ('*' is any one label); label by label.
SELECT DISTINCT labels[:coalesce(%(max_depth)s::integer, cardinality(labels))] AS namespace
FROM (
    SELECT string_to_array(namespace, '.') AS labels
    FROM (SELECT DISTINCT namespace FROM {schema}.memory WHERE expires_at IS NULL OR expires_at > now()) AS present
) AS split
WHERE NOT EXISTS (
    SELECT FROM jsonb_to_recordset(%(conditions)s::jsonb) AS wanted (suffix boolean, depth integer, path text[])
    WHERE cardinality(labels) < depth OR EXISTS (
        SELECT FROM generate_series(1, depth) AS i
        WHERE path[i] <> '*' AND path[i] <> labels[CASE WHEN suffix THEN cardinality(labels) - depth + i ELSE i END]))
ORDER BY namespace LIMIT %(limit)s OFFSET %(offset)s

-- name: history
-- Every version of some memories, each memory's oldest first.
SELECT v.namespace, v.key, v.version, v.batch_id, v.operation, v.mode, v.reason, v.evidence, v.kind, v.value, v.text,
    v.session, v.position, v.importance, v.source, v.valid_from, v.valid_to, v.expires_at, v.language, v.ttl, v.restores,
    v.recorded_at, b.actor, b.policy
FROM {schema}.memory_version AS v JOIN {schema}.operation_batch AS b USING (namespace, batch_id)
WHERE v.namespace = %(namespace)s AND v.key = ANY(%(keys)s)
ORDER BY v.key, v.version

-- name: open_batch
-- Wait for the batches before this one, and claim an idempotency key; no row comes back where it was claimed before,
-- nor where this very batch is there: its transaction was run again because nobody knew whether it had been committed.
-- The time is taken after the wait: in one namespace, later versions have later times, whoever's clock is wrong.
WITH turn AS MATERIALIZED (
    SELECT pg_advisory_xact_lock(hashtext('memgraph_plugin'), %(slot)s::integer)
)
INSERT INTO {schema}.operation_batch (namespace, batch_id, idempotency_key, actor, policy, receipts, recorded_at)
SELECT %(namespace)s::text, %(batch_id)s::uuid, %(idempotency_key)s::text, %(actor)s::text, %(policy)s::text,
    %(receipts)s::jsonb, clock_timestamp()
FROM turn
ON CONFLICT DO NOTHING
RETURNING recorded_at, (SELECT name FROM {schema}.embedding_model) AS model,
    (SELECT dimension FROM {schema}.embedding_model) AS dimension

-- name: close_batch
UPDATE {schema}.operation_batch SET receipts = %(receipts)s WHERE namespace = %(namespace)s AND batch_id = %(batch_id)s

-- name: replayed_batch
SELECT batch_id, receipts FROM {schema}.operation_batch
WHERE namespace = %(namespace)s AND (idempotency_key = %(idempotency_key)s OR batch_id = %(batch_id)s)

-- name: lock_current
-- The rows about to be changed, locked in one order so that two batches cannot wait for each other.
SELECT namespace, key, kind, version, value, text, tokens, session, position, importance, source,
    valid_from, valid_to, created_at, updated_at, expires_at, language, ttl
FROM {schema}.memory WHERE namespace = %(namespace)s AND key = ANY(%(keys)s)
ORDER BY key FOR UPDATE

-- name: last_versions
-- The number of the newest version of each key, also of deleted ones.
SELECT key, max(version) FROM {schema}.memory_version
WHERE namespace = %(namespace)s AND key = ANY(%(keys)s) GROUP BY key

-- name: insert_memory
INSERT INTO {schema}.memory (namespace, key, kind, version, value, text, language, embedding, tokens, session, position,
    importance, source, valid_from, valid_to, created_at, updated_at, expires_at, ttl)
VALUES (%s, %s, %s, %s, %s, %s, %s, %b, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (namespace, key) DO UPDATE SET kind = excluded.kind, version = excluded.version, value = excluded.value,
    text = excluded.text, language = excluded.language, embedding = excluded.embedding, tokens = excluded.tokens,
    session = excluded.session, position = excluded.position, importance = excluded.importance, source = excluded.source,
    valid_from = excluded.valid_from, valid_to = excluded.valid_to, created_at = excluded.created_at, updated_at = excluded.updated_at,
    expires_at = excluded.expires_at, ttl = excluded.ttl

-- name: copy_memory
COPY {schema}.memory (namespace, key, kind, version, value, text, language, embedding, tokens, session, position,
    importance, source, valid_from, valid_to, created_at, updated_at, expires_at, ttl) FROM STDIN (FORMAT BINARY)

-- name: insert_version
INSERT INTO {schema}.memory_version (namespace, key, version, batch_id, operation, mode, reason, evidence, kind, value, text,
    session, position, importance, source, valid_from, expires_at, recorded_at, valid_to, language, ttl, restores)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)

-- name: copy_version
COPY {schema}.memory_version (namespace, key, version, batch_id, operation, mode, reason, evidence, kind, value, text,
    session, position, importance, source, valid_from, expires_at, recorded_at, valid_to, language, ttl, restores) FROM STDIN (FORMAT BINARY)

-- name: delete_memories
DELETE FROM {schema}.memory WHERE namespace = %(namespace)s AND key = ANY(%(keys)s)

-- name: refresh_ttl
-- Reading a memory that has a time to live lets it live that long again; a reader waits for no writer.
UPDATE {schema}.memory SET expires_at = now() + memory.ttl * interval '1 minute'
FROM (
    SELECT namespace, key
    FROM {schema}.memory JOIN unnest(%(namespaces)s::text[], %(keys)s::text[]) AS wanted (namespace, key) USING (namespace, key)
    WHERE ttl IS NOT NULL FOR UPDATE OF memory SKIP LOCKED
) AS seen
WHERE memory.namespace = seen.namespace AND memory.key = seen.key

-- name: embedding_model
SELECT name, dimension FROM {schema}.embedding_model

-- name: record_embedding_model
INSERT INTO {schema}.embedding_model (name, dimension) VALUES (%(name)s, %(dimension)s) ON CONFLICT DO NOTHING

-- name: schema_version
SELECT max(number) FROM {schema}.migration

-- name: languages
SELECT cfgname::text FROM pg_ts_config

-- name: layout
-- How the tables lie on disk, as the catalog has it.
SELECT typname AS vector_type, (SELECT count(*) FROM pg_inherits WHERE inhparent = memory.oid)::integer AS partitions
FROM pg_class AS memory JOIN pg_namespace ON pg_namespace.oid = relnamespace
    JOIN pg_attribute ON attrelid = memory.oid AND attname = 'embedding' JOIN pg_type ON pg_type.oid = atttypid
WHERE nspname = %(schema)s AND relname = 'memory'
