-- Pieces that statements say as {vector}, {row}, {that_row}, {said}, {visible}, {breadth} and {fusion}.

-- name: query_vector
-- The vector of a question. Where another model made those in the database, the statement fails, naming both.
(SELECT CASE
    WHEN held.name = %(model)s AND held.dimension = %(dimension)s THEN %(vector)b::{vector_type}
    WHEN %(vector)b::{vector_type} IS NOT NULL
        THEN {schema}.refuse_model(held.name, held.dimension, %(model)s, %(dimension)s)::{vector_type}
    END FROM (SELECT) AS one_row LEFT JOIN {schema}.embedding_model AS held ON true)

-- name: row
-- What tells the rows of `memory` apart within one statement.
memory.ctid

-- name: that_row
memory.ctid = top.id AND {scope}

-- name: part_row
-- A ctid is unique within its partition only.
ROW(memory.tableoid, memory.ctid)::{schema}.place

-- name: that_part_row
memory.tableoid = (top.id).part AND memory.ctid = (top.id).line AND {scope}

-- name: said
-- Whether there is a text to embed; a sealed memory may have one.
(memory.text ~ '\S' OR memory.value ? '$sealed')

-- name: visible
(expires_at IS NULL OR expires_at > now()) AND (valid_to IS NULL OR valid_to > now())
        AND (%(kinds)s::text[] IS NULL OR kind = ANY(%(kinds)s))
        AND (%(path)s::jsonpath IS NULL OR jsonb_path_exists(value, %(path)s, %(vars)s, true))

-- name: breadth
-- For this transaction; `breadth IS NOT NULL` in a lateral subquery makes the planner set them before it scans.
SELECT set_config('hnsw.ef_search', %(breadth)s::text, true) AS breadth,
        set_config('hnsw.iterative_scan', 'relaxed_order', true)

-- name: fusion
-- BM25 of a row whose `terms` are at hand (k1 = 1.2, b = 0.75), and the sum of the z-scores; as in `recall`.
CROSS JOIN LATERAL (
        SELECT sum(idf * tf * 2.2::float8 / (tf + 0.3::float8 + 0.9::float8 * length(terms) / mean_length)) AS bm25
        FROM (
            SELECT idf, round(1 / (1.6449340668482264::float8
                * (1::float8 - ts_rank(ARRAY[1, 1, 1, 1]::real[], terms, term))) - 0.5::float8) AS tf
            FROM weight WHERE terms @@ term
        ) AS matched
    ) AS words CROSS JOIN LATERAL (
        SELECT coalesce((cosine - cosine_mean) * cosine_scale, 0)
            + coalesce((coalesce(bm25, 0) - bm25_mean) * bm25_scale, 0) AS z
    ) AS summed
