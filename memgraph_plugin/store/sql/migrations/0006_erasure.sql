-- That a namespace was erased, without its name: a salted, slow digest of it, and the rows by table.
CREATE TABLE erasure (
    id uuid PRIMARY KEY,
    salt bytea NOT NULL,
    digest bytea NOT NULL,
    counts jsonb NOT NULL,
    actor text NOT NULL,
    erased_at timestamptz NOT NULL
);

-- Sample tables anew, so that the planner's statistics hold nothing of rows that are gone. With its owner's
-- rights, since who may delete rows may not do this. Postgres keeps the old sample of a table that became empty,
-- and of a column that is sampled no more: from 18 on it can be cleared.
CREATE FUNCTION renew_statistics(tables regclass[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    each record;
BEGIN
    IF current_setting('server_version_num')::integer >= 180000 THEN
        FOR each IN
            SELECT n.nspname, c.relname, a.attname, inherited
            FROM (
                SELECT unnest(tables) AS given
                UNION SELECT relid FROM unnest(tables) AS whole CROSS JOIN pg_partition_tree(whole)
            ) AS parts
                JOIN pg_class AS c ON c.oid = given JOIN pg_namespace AS n ON n.oid = c.relnamespace
                JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                CROSS JOIN (VALUES (false), (true)) AS kinds (inherited)
        LOOP
            PERFORM pg_clear_attribute_stats(each.nspname, each.relname, each.attname, each.inherited);
        END LOOP;
    END IF;
    FOR each IN SELECT given FROM unnest(tables) AS given LOOP
        EXECUTE format('ANALYZE %s', each.given);
    END LOOP;
END
$$;
