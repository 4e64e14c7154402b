-- Another embedding model may follow, while the first goes on; statistics without samples of what people said.

-- A zero vector is near nothing: its cosine is no number.
UPDATE memory SET embedding = NULL WHERE embedding IS NOT NULL AND l2_norm(embedding) = 0;

ALTER TABLE embedding_model
    ADD COLUMN next_name text, -- the model that is to follow, while its vectors are made
    ADD COLUMN next_dimension integer;

-- What a statement calls that was given a vector of another model. "MGP01" is known in store/connection.py.
CREATE FUNCTION refuse_model(held text, held_dimension integer, given text, given_dimension integer) RETURNS text
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RAISE EXCEPTION 'The database holds vectors of % (% dimensions); this store was given % (%).',
        held, held_dimension, given, given_dimension USING ERRCODE = 'MGP01';
END
$$;

-- Vectors of the model that is to follow. A memory that is gone takes its own along.
CREATE TABLE embedding_next (
    namespace text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    version integer NOT NULL, -- of the memory that was embedded
    embedding halfvec,
    PRIMARY KEY (namespace, key),
    FOREIGN KEY (namespace, key) REFERENCES memory ON DELETE CASCADE
);
ALTER TABLE embedding_next ALTER COLUMN embedding SET STORAGE MAIN;
SELECT guard('embedding_next');

-- The planner's statistics hold samples of what is in a column, and outlive the rows: none of what people said.
ALTER TABLE memory
    ALTER COLUMN key SET STATISTICS 0, ALTER COLUMN value SET STATISTICS 0, ALTER COLUMN text SET STATISTICS 0,
    ALTER COLUMN terms SET STATISTICS 0, ALTER COLUMN embedding SET STATISTICS 0,
    ALTER COLUMN session SET STATISTICS 0, ALTER COLUMN source SET STATISTICS 0;
ALTER TABLE memory_version
    ALTER COLUMN key SET STATISTICS 0, ALTER COLUMN value SET STATISTICS 0, ALTER COLUMN text SET STATISTICS 0,
    ALTER COLUMN reason SET STATISTICS 0, ALTER COLUMN evidence SET STATISTICS 0,
    ALTER COLUMN session SET STATISTICS 0, ALTER COLUMN source SET STATISTICS 0;
ALTER TABLE operation_batch
    ALTER COLUMN receipts SET STATISTICS 0, ALTER COLUMN idempotency_key SET STATISTICS 0,
    ALTER COLUMN actor SET STATISTICS 0;
ALTER TABLE embedding_next
    ALTER COLUMN key SET STATISTICS 0, ALTER COLUMN embedding SET STATISTICS 0;

-- What was sampled before is not overwritten: it must be taken out.
DO $$
DECLARE
    sampled record;
BEGIN
    FOR sampled IN
        SELECT a.attrelid, a.attnum, n.nspname, c.relname, a.attname
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = current_schema AND a.attstattarget = 0 AND a.attnum > 0 AND c.relkind = 'r'
    LOOP
        IF current_setting('server_version_num')::integer >= 180000 THEN
            PERFORM pg_clear_attribute_stats(sampled.nspname, sampled.relname, sampled.attname, false);
        ELSIF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
            DELETE FROM pg_statistic WHERE starelid = sampled.attrelid AND staattnum = sampled.attnum;
        ELSE
            RAISE WARNING 'Old samples of memories stay in pg_statistic until a superuser deletes those of %.%',
                sampled.relname, sampled.attname;
        END IF;
    END LOOP;
END
$$;
