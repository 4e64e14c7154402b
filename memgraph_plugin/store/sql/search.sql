-- Search by vectors, and ranking where a namespace is too large to read every row of it. Such a namespace has partial
-- indexes (`store/indexing.py`), and its statements name it as a literal: of a parameter, the planner of a
-- generic plan could not tell that the index holds it.

-- name: indexed_exactly
namespace = {namespace}

-- name: indexed_prefix
(namespace = {namespace} OR (namespace > {namespace} || '.' AND namespace < {namespace} || '/'))

-- name: indexed_rest
-- What lies below, where the index is of the namespace alone.
namespace > {namespace} || '.' AND namespace < {namespace} || '/'

-- name: nowhere
namespace = {namespace} AND false

-- name: nearest
-- Rows in scope by cosine alone. The score is an expression that no index of distances has: every row is read.
SELECT namespace, key, value, created_at, updated_at, expires_at,
    1 - (embedding <=> {vector}) AS score
FROM {schema}.memory
WHERE {scope} AND embedding IS NOT NULL AND {visible}
ORDER BY score DESC, namespace, key LIMIT %(limit)s OFFSET %(offset)s

-- name: nearest_indexed
-- The same by the index of distances, and what lies below by reading it. The index has its rows only nearly in order: more
-- are taken than were asked for, always as many, so that pages fit together.
WITH settings AS MATERIALIZED (
    {breadth}
), near AS MATERIALIZED (
    SELECT nearest.* FROM settings CROSS JOIN LATERAL (
        SELECT namespace, key, 1 - (embedding <=> {vector}) AS score
        FROM {schema}.memory
        WHERE breadth IS NOT NULL AND {scope} AND {visible}
        ORDER BY embedding::{vector_type}({dimension}) <=> {vector} LIMIT %(breadth)s
    ) AS nearest
), top AS (
    SELECT * FROM near
    UNION ALL (
        SELECT namespace, key, 1 - (embedding <=> {vector}) AS score
        FROM {schema}.memory
        WHERE {rest} AND embedding IS NOT NULL AND {visible}
        ORDER BY score DESC, namespace, key LIMIT %(limit)s::bigint + %(offset)s::bigint
    )
    ORDER BY score DESC, namespace, key LIMIT %(limit)s OFFSET %(offset)s
)
SELECT namespace, key, value, created_at, updated_at, expires_at, score, (SELECT count(*) FROM near) AS reached
FROM top JOIN {schema}.memory USING (namespace, key)
ORDER BY score DESC, namespace, key

-- name: recall_indexed
-- `recall` over candidates: the nearest rows, those that words make likely, and the neighbours of the best. A word that
-- was not noted as frequent is looked up in every row; frequent ones, where two or three come together that seldom do.
-- What z-scores need is estimated: of cosines from a sample of rows; of BM25 from what was noted (taking
-- frequent words as independent) and from the rows with rare words, all of which are read.
WITH settings AS MATERIALIZED (
    {breadth}
), noted AS MATERIALIZED (
    SELECT greatest(rows, 1)::float8 AS n, nullif(mean_length, 0) AS mean_length, cosine_mean, cosine_scale
    FROM {schema}.search_index CROSS JOIN LATERAL (
        SELECT avg(cosine) AS cosine_mean, 1 / nullif(stddev_pop(cosine), 0) AS cosine_scale
        FROM (
            SELECT 1 - (embedding <=> {vector}) AS cosine
            FROM unnest(sample_namespaces, sample_keys) AS sample (namespace, key)
                JOIN {schema}.memory USING (namespace, key)
        ) AS sampled
    ) AS moments
    WHERE namespace = {namespace} AND below = {below}
), query AS MATERIALIZED (
    SELECT ordinal, ('''' || replace(replace(lexeme, '\', '\\'), '''', '''''') || '''')::tsquery AS term,
        frequency, weight, square
    FROM unnest(tsvector_to_array({schema}.search_vector(%(language)s, %(query)s)))
            WITH ORDINALITY AS lexemes (lexeme, ordinal)
        LEFT JOIN {schema}.search_term AS frequent
            ON frequent.namespace = {namespace} AND frequent.below = {below} AND frequent.term = lexeme
), frequent AS MATERIALIZED (
    -- The most telling ones; as shares of the rows, so that those of several words multiply.
    SELECT ordinal, term, frequency / n AS share, %(enough)s / n AS enough
    FROM query CROSS JOIN noted WHERE frequency IS NOT NULL ORDER BY frequency LIMIT 12
), likely AS (
    SELECT term FROM query WHERE frequency IS NULL
    UNION ALL
    SELECT one.term && two.term FROM frequent AS one JOIN frequent AS two ON one.ordinal < two.ordinal
    WHERE one.share * two.share <= one.enough
    UNION ALL
    SELECT one.term && two.term && three.term
    FROM frequent AS one JOIN frequent AS two ON one.ordinal < two.ordinal
        JOIN frequent AS three ON two.ordinal < three.ordinal
    WHERE one.share * two.share * three.share <= one.enough AND one.share * two.share > one.enough
        AND one.share * three.share > one.enough AND two.share * three.share > one.enough
), near AS MATERIALIZED (
    SELECT nearest.* FROM settings CROSS JOIN LATERAL (
        SELECT namespace, key, session, position, terms, 1 - (embedding <=> {vector}) AS cosine
        FROM {schema}.memory
        WHERE breadth IS NOT NULL AND {scope} AND {visible}
        ORDER BY embedding::{vector_type}({dimension}) <=> {vector} LIMIT %(breadth)s
    ) AS nearest
), worded AS MATERIALIZED (
    SELECT namespace, key, session, position, terms, 1 - (embedding <=> {vector}) AS cosine
    FROM {schema}.memory
    WHERE {scope} AND {visible}
        AND terms @@ (SELECT string_agg('(' || term::text || ')', ' | ')::tsquery FROM likely)
), rare AS MATERIALIZED (
    SELECT ordinal, namespace, key, length(terms) AS length, round(1 / (1.6449340668482264::float8
        * (1::float8 - ts_rank(ARRAY[1, 1, 1, 1]::real[], terms, term))) - 0.5::float8) AS tf
    FROM worded JOIN query ON terms @@ term WHERE frequency IS NULL
), weight AS MATERIALIZED (
    SELECT ordinal, term, weight, square, ln(1 + greatest(n - df + 0.5::float8, 0) / (df + 0.5::float8)) AS idf
    FROM noted CROSS JOIN (
        SELECT ordinal, term, weight, square,
            coalesce(frequency, (SELECT count(*)::float8 FROM rare WHERE rare.ordinal = query.ordinal)) AS df
        FROM query
    ) AS counted
), rare_seen AS (
    SELECT coalesce(sum(bm25) / n, 0) AS mean, coalesce(sum(bm25 * bm25) / n, 0) AS square
    FROM noted LEFT JOIN (
        SELECT sum(idf * tf * 2.2::float8 / (tf + 0.3::float8 + 0.9::float8 * length / mean_length)) AS bm25
        FROM rare JOIN weight USING (ordinal) CROSS JOIN noted GROUP BY namespace, key
    ) AS scored ON true GROUP BY n
), frequent_seen AS (
    SELECT coalesce(sum(idf * weight), 0) AS mean, coalesce(sum(idf * idf * (square - weight * weight)), 0) AS variance
    FROM weight WHERE weight IS NOT NULL
), seen AS MATERIALIZED (
    SELECT mean_length, cosine_mean, cosine_scale, rare_seen.mean + frequent_seen.mean AS bm25_mean, 1 / nullif(sqrt(
        greatest(rare_seen.square - rare_seen.mean * rare_seen.mean + frequent_seen.variance, 0)), 0) AS bm25_scale
    FROM noted CROSS JOIN rare_seen CROSS JOIN frequent_seen
), found AS (
    SELECT * FROM worded
    UNION ALL
    SELECT * FROM near WHERE (namespace, key) NOT IN (SELECT namespace, key FROM worded)
), fused AS MATERIALIZED (
    SELECT namespace, key, session, position, cosine, bm25, z FROM found CROSS JOIN seen {fusion}
), lifted AS MATERIALIZED (
    SELECT namespace, session, position + distance AS position, sum(z * share) AS lift
    FROM (
        SELECT namespace, session, position, z FROM fused
        WHERE z > 0 ORDER BY z DESC LIMIT 100
    ) AS lifting CROSS JOIN (
        VALUES (-2, 0.15::float8), (-1, 0.40::float8), (1, 0.40::float8), (2, 0.15::float8)
    ) AS neighbour (distance, share)
    WHERE session IS NOT NULL AND position IS NOT NULL
    GROUP BY 1, 2, 3
), neighbours AS MATERIALIZED (
    SELECT namespace, key, z + lift AS score, cosine, bm25
    FROM lifted CROSS JOIN seen CROSS JOIN LATERAL (
        SELECT key, terms, 1 - (embedding <=> {vector}) AS cosine
        FROM {schema}.memory
        WHERE memory.namespace = lifted.namespace AND memory.session = lifted.session
            AND memory.position = lifted.position AND {scope} AND {visible}
    ) AS neighbour {fusion}
), top AS (
    SELECT * FROM neighbours
    UNION ALL
    SELECT namespace, key, z, cosine, bm25 FROM fused
    WHERE (namespace, key) NOT IN (SELECT namespace, key FROM neighbours)
    ORDER BY score DESC, key LIMIT %(limit)s OFFSET %(offset)s
)
SELECT namespace, key, kind, version, value, text, tokens, session, position, importance, source,
    valid_from, valid_to, created_at, updated_at, expires_at, score, cosine, bm25,
    (SELECT count(*) FROM near) AS reached
FROM top JOIN {schema}.memory USING (namespace, key)
ORDER BY score DESC, key

-- name: search_indexes
SELECT namespace, below, asked, dimension, rows FROM {schema}.search_index

-- name: count_rows
-- Of a scope, and no further than somebody cares.
SELECT count(*) AS rows
FROM (SELECT FROM {schema}.memory WHERE {scope} LIMIT %(most)s) AS counted

-- name: tables_of
-- What an index of a namespace has to be on: the table; where that is partitioned, the partitions that hold it.
SELECT relation.oid::regclass::text AS name, pg_has_role(relation.relowner, 'USAGE') AS owned
FROM pg_class AS relation
WHERE relation.oid = to_regclass(%(table)s) AND relkind = 'r'
UNION ALL
SELECT relation.oid::regclass::text, pg_has_role(relation.relowner, 'USAGE')
FROM pg_inherits JOIN pg_class AS relation ON relation.oid = inhrelid CROSS JOIN LATERAL
    regexp_match(pg_get_expr(relpartbound, relation.oid), 'modulus (\d+), remainder (\d+)') AS bound
WHERE inhparent = to_regclass(%(table)s)
    AND (%(below)s OR satisfies_hash_partition(inhparent, bound[1]::integer, bound[2]::integer, %(namespace)s::text COLLATE "C"))
ORDER BY 1

-- name: index_states
-- Which indexes of these names there are, and whether a build of them came to its end.
SELECT relname AS name, indisvalid AS valid
FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
WHERE relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = to_regclass(%(table)s)) AND relname = ANY(%(names)s)

-- name: try_turn
-- One builder of an index at a time, in the whole database; held until the connection ends.
SELECT pg_try_advisory_lock(hashtext('memgraph_plugin index'), hashtext(%(index)s)) AS mine

-- name: note_index
INSERT INTO {schema}.search_index (namespace, below, asked, dimension, rows, mean_length, sample_namespaces, sample_keys, noted_at)
SELECT {namespace}, {below}, %(asked)s, {dimension}, rows, mean_length,
    coalesce(namespaces, '{{}}'), coalesce(keys, '{{}}'), now()
FROM (
    SELECT count(*) AS rows, coalesce(avg(length(terms)), 0) AS mean_length FROM {schema}.memory
    WHERE {scope} AND (text <> '' OR embedding IS NOT NULL)
) AS counted CROSS JOIN (
    SELECT array_agg(namespace) AS namespaces, array_agg(key) AS keys
    FROM (
        SELECT namespace, key FROM {schema}.memory
        WHERE {scope} AND embedding IS NOT NULL ORDER BY hashtextextended(key, 0) LIMIT 1000
    ) AS chosen
) AS sampled
ON CONFLICT (namespace, below) DO UPDATE SET asked = search_index.asked OR excluded.asked, dimension = excluded.dimension,
    rows = excluded.rows, mean_length = excluded.mean_length, sample_namespaces = excluded.sample_namespaces,
    sample_keys = excluded.sample_keys, noted_at = excluded.noted_at
RETURNING namespace, below, asked, dimension, rows

-- name: note_terms
INSERT INTO {schema}.search_term (namespace, below, term, frequency, weight, square)
SELECT {namespace}, {below}, lexeme, count(*), sum(share) / n, sum(share * share) / n
FROM (
    SELECT lexeme, n, tf * 2.2::float8 / (tf + 0.3::float8 + 0.9::float8 * length / mean_length) AS share
    FROM (
        SELECT rows::float8 AS n, nullif(mean_length, 0) AS mean_length
        FROM {schema}.search_index WHERE namespace = {namespace} AND below = {below}
    ) AS noted CROSS JOIN (
        SELECT lexeme, length(terms) AS length, cardinality(positions)::float8 AS tf
        FROM {schema}.memory CROSS JOIN unnest(terms)
        WHERE {scope}
    ) AS posted
) AS weighed
GROUP BY lexeme, n HAVING count(*) > %(enough)s

-- name: forget_indexes
-- Of all namespaces: their vectors are dropped.
WITH gone AS (DELETE FROM {schema}.search_term)
DELETE FROM {schema}.search_index

-- name: forget_terms
DELETE FROM {schema}.search_term WHERE namespace = {namespace} AND below = {below}

-- name: forget_index
DELETE FROM {schema}.search_index WHERE namespace = {namespace} AND below = {below} RETURNING namespace
