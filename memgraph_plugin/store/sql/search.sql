-- name: nearest
-- Rows in scope by cosine alone. The score is an expression that no index of distances has: every row is read.
SELECT namespace, key, value, created_at, updated_at, expires_at,
    1 - (embedding <=> %(vector)b::halfvec) AS score
FROM {schema}.memory
WHERE {scope} AND embedding IS NOT NULL
    AND (expires_at IS NULL OR expires_at > now())
    AND (%(path)s::jsonpath IS NULL OR jsonb_path_exists(value, %(path)s, %(vars)s, true))
ORDER BY score DESC, namespace, key LIMIT %(limit)s OFFSET %(offset)s
