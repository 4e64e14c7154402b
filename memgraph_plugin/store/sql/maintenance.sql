-- Upkeep of the files: of all namespaces, by whoever owns the tables.

-- name: table_sizes
SELECT c.oid, c.relname AS name, pg_table_size(c.oid) AS heap_bytes, pg_indexes_size(c.oid) AS index_bytes,
    pg_stat_get_dead_tuples(c.oid) AS dead_rows, pg_index.indexrelid::regclass::text AS primary_key,
    coalesce(parent.relname, c.relname) AS table
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_index ON indrelid = c.oid AND indisprimary
    LEFT JOIN pg_inherits ON inhrelid = c.oid LEFT JOIN pg_class parent ON parent.oid = inhparent
WHERE nspname = %(schema)s AND c.relkind = 'r'
    AND EXISTS (SELECT FROM pg_attribute WHERE attrelid = c.oid AND attname = 'namespace')
ORDER BY 2

-- name: scattered_namespaces
-- Namespaces whose rows lie on more than twice the pages they would fill, at the table's own rows a page.
WITH page AS MATERIALIZED (
    SELECT namespace, tableoid, (memory.ctid::text::point)[0] AS number, count(*) AS rows
    FROM {schema}.memory GROUP BY 1, 2, 3
), density AS (
    SELECT sum(rows) / count(DISTINCT (tableoid, number)) AS rows FROM page
), placed AS (
    SELECT namespace, sum(page.rows)::bigint AS rows, count(*) AS pages,
        ceil(sum(page.rows) / min(density.rows))::bigint AS fewest
    FROM page CROSS JOIN density GROUP BY namespace
)
SELECT namespace, rows, pages, fewest FROM placed
WHERE rows BETWEEN %(at_least)s AND %(at_most)s AND pages > 2 * fewest
ORDER BY namespace

-- name: worn_indexes
-- Indexes whose making failed, which nobody makes just now; and those with far more room than their rows take.
SELECT c.relname AS name, NOT indisvalid AS broken
FROM pg_index JOIN pg_class c ON c.oid = indexrelid JOIN pg_namespace n ON n.oid = relnamespace
    JOIN pg_am ON pg_am.oid = relam
WHERE nspname = %(schema)s AND relkind = 'i'
    AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index WHERE index_relid = c.oid)
    AND (NOT indisvalid OR amname = 'btree'
        AND pg_relation_size(c.oid) > %(at_least)s + %(row_bytes)s * greatest(reltuples, 0))
ORDER BY 1

-- name: written_columns
SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) AS columns
FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid JOIN pg_namespace n ON n.oid = relnamespace
WHERE nspname = %(schema)s AND relname = 'memory' AND attnum > 0 AND attgenerated = '' AND NOT attisdropped

-- name: hold_memory
-- Who writes waits; a statement that deletes must not miss a row that moves.
LOCK TABLE {schema}.memory IN SHARE ROW EXCLUSIVE MODE
