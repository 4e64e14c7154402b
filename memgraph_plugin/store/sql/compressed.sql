-- Compressed memories. Whoever writes one begins with its row in kv_memory, and so waits for others who do.

-- name: kv_memory
SELECT namespace, key, header, version, windows, bytes, updated_at FROM {schema}.kv_memory
WHERE namespace = %(namespace)s AND key = %(key)s

-- name: kv_memories
SELECT namespace, key, header, version, windows, bytes, updated_at FROM {schema}.kv_memory
WHERE {scope} ORDER BY namespace, key

-- name: create_kv
-- No row comes back where there is one already.
INSERT INTO {schema}.kv_memory (namespace, key, version, header, windows, bytes, updated_at)
VALUES (%(namespace)s, %(key)s, (extract(epoch FROM clock_timestamp()) * 1000)::bigint, %(header)s, %(windows)s,
    %(bytes)s, clock_timestamp())
ON CONFLICT DO NOTHING
RETURNING namespace, key, header, version, windows, bytes, updated_at

-- name: change_kv
-- No row comes back where it is not as it was when it was read.
UPDATE {schema}.kv_memory SET version = version + 1, header = %(header)s, windows = %(after)s::integer + %(windows)s::integer,
    bytes = CASE WHEN %(after)s::integer = 0 THEN 0 ELSE bytes END + %(bytes)s::bigint, updated_at = clock_timestamp()
WHERE namespace = %(namespace)s AND key = %(key)s AND version = %(version)s
    AND (%(after)s::integer = 0 OR windows = %(after)s::integer)
RETURNING namespace, key, header, version, windows, bytes, updated_at

-- name: kv_parts
SELECT seq, part, last, sealed, sha256, data, file, place, size FROM {schema}.kv_part
WHERE namespace = %(namespace)s AND key = %(key)s ORDER BY seq, part

-- name: insert_kv_part
INSERT INTO {schema}.kv_part (namespace, key, seq, part, last, sealed, sha256, data, file, place, size)
VALUES (%(namespace)s, %(key)s, %(seq)s, %(part)s, %(last)s, %(sealed)s, %(sha256)s, %(data)b, %(file)s, %(place)s,
    %(size)s)

-- name: delete_kv
DELETE FROM {schema}.kv_memory WHERE namespace = %(namespace)s AND key = %(key)s RETURNING namespace, key

-- name: delete_kv_below
DELETE FROM {schema}.kv_memory WHERE {scope} RETURNING namespace, key

-- name: delete_kv_parts
-- A statement of its own: it must see what was added before their rows in kv_memory could be deleted.
DELETE FROM {schema}.kv_part USING unnest(%(namespaces)s::text[], %(keys)s::text[]) AS gone (namespace, key)
WHERE kv_part.namespace = gone.namespace AND kv_part.key = gone.key
RETURNING kv_part.file

-- name: kv_files
SELECT DISTINCT file FROM {schema}.kv_part WHERE {scope} AND file IS NOT NULL

-- name: named_files
SELECT DISTINCT file FROM {schema}.kv_part WHERE file IS NOT NULL
