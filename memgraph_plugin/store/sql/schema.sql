-- The schema as it stands: what a new database gets. Every key begins with the namespace.
-- Migrations of older databases are in migrations/; together they arrive at exactly this.
-- store/layout.py makes other layouts of it: hash partitions, vector in place of halfvec.

CREATE TABLE migration (
    number integer PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- Which model made the vectors. One row: vectors of two models cannot be compared.
CREATE TABLE embedding_model (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    name text NOT NULL,
    dimension integer NOT NULL CHECK (dimension > 0),
    next_name text, -- the model that is to follow, while its vectors are made
    next_dimension integer
);

-- What a statement calls that was given a vector of another model. "MGP01" is known in store/connection.py.
CREATE FUNCTION refuse_model(held text, held_dimension integer, given text, given_dimension integer) RETURNS text
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RAISE EXCEPTION 'The database holds vectors of % (% dimensions); this store was given % (%).',
        held, held_dimension, given, given_dimension USING ERRCODE = 'MGP01';
END
$$;

-- Runs of Chinese, Japanese and Korean letters as overlapping pairs, since nothing marks their words.
CREATE FUNCTION bigrams(body text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (
    SELECT string_agg(
        CASE
            WHEN here.cjk AND here.next_cjk THEN here.letter || here.next_letter || ' '
            WHEN here.cjk AND here.previous_cjk THEN ' '
            WHEN here.cjk THEN here.letter || ' '
            WHEN here.next_cjk THEN here.letter || ' '
            ELSE here.letter
        END, '' ORDER BY here.i)
    FROM (
        SELECT letters.i, letters.letter, letters.cjk,
            lead(letters.letter) OVER (ORDER BY letters.i) AS next_letter,
            coalesce(lead(letters.cjk) OVER (ORDER BY letters.i), false) AS next_cjk,
            coalesce(lag(letters.cjk) OVER (ORDER BY letters.i), false) AS previous_cjk
        FROM (
            SELECT split.i, split.letter,
                split.letter ~ '[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff]' AS cjk
            FROM regexp_split_to_table(body, '') WITH ORDINALITY AS split (letter, i)
        ) AS letters
    ) AS here
);

-- What text search reads: the first 65,536 characters (a tsvector holds 1 MB at most).
CREATE FUNCTION search_vector(language text, body text) RETURNS tsvector
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN body ~ '[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff]'
        THEN to_tsvector(language::regconfig, bigrams(left(body, 65536)))
    ELSE to_tsvector(language::regconfig, left(body, 65536))
END;

-- Every memory as it is now: what search reads.
CREATE TABLE memory (
    namespace text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    kind text NOT NULL,
    version integer NOT NULL,
    value jsonb NOT NULL,
    text text NOT NULL, -- empty: not to be found by search
    language text NOT NULL,
    terms tsvector NOT NULL GENERATED ALWAYS AS (search_vector(language, text)) STORED,
    embedding halfvec,
    tokens integer NOT NULL,
    session text,
    position integer,
    importance real NOT NULL,
    source text NOT NULL,
    valid_from timestamptz,
    valid_to timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    expires_at timestamptz,
    ttl double precision, -- minutes
    PRIMARY KEY (namespace, key)
) /* or partitioned */;

-- Inline wherever a row allows it: exact search reads them all; value and text make room first.
ALTER TABLE memory ALTER COLUMN embedding SET STORAGE MAIN;
ALTER TABLE memory ALTER COLUMN terms SET STORAGE MAIN;

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

-- One call of apply: who decided, by what policy, and what became of each operation (refusals and no-ops too).
CREATE TABLE operation_batch (
    namespace text COLLATE "C" NOT NULL,
    batch_id uuid NOT NULL,
    idempotency_key text,
    actor text NOT NULL,
    policy text NOT NULL,
    receipts jsonb NOT NULL,
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (namespace, batch_id),
    UNIQUE (namespace, idempotency_key)
) /* or partitioned */;

-- Every version of every memory, with the operation that made it and why. Only ever appended to.
-- A deleted memory's last version has no value.
CREATE TABLE memory_version (
    namespace text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    version integer NOT NULL,
    batch_id uuid NOT NULL,
    operation text NOT NULL,
    mode text,
    reason text NOT NULL,
    evidence text[] NOT NULL,
    kind text,
    value jsonb,
    text text,
    session text,
    position integer,
    importance real,
    source text,
    valid_from timestamptz,
    expires_at timestamptz,
    recorded_at timestamptz NOT NULL,
    valid_to timestamptz,
    language text,
    ttl double precision, -- minutes
    restores integer, -- the version that an undo went back to
    PRIMARY KEY (namespace, key, version)
) /* or partitioned */;

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

-- What sweeping looks for: memories that have expired, and deleted ones whose history was meant to expire.
CREATE INDEX memory_expires_at ON memory (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX memory_version_expires_at ON memory_version (expires_at)
    WHERE operation = 'delete' AND expires_at IS NOT NULL;

-- Row-level security. A session sees what memgraph_plugin.scope names: a namespace and those below it, '.' for all
-- of them (no namespace is called that), and nothing where it is not set. Every table with a namespace is guarded.
CREATE FUNCTION guard(guarded regclass) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    -- Read once a statement, and not once a row.
    scope CONSTANT text := $scope$(SELECT nullif(current_setting('memgraph_plugin.scope', true), ''))$scope$;
    cap record;
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', guarded);
    -- CASE, since the planner would take the condition for one more that few rows meet, and join them one by one.
    EXECUTE format($policy$CREATE POLICY scope ON %1$s USING (CASE WHEN
        namespace = %2$s OR (namespace > %2$s || '.' AND namespace < %2$s || '/') OR %2$s = '.'
        THEN true ELSE false END)$policy$, guarded, scope);
    -- Roles that are bound to a tenant are so on every table, whichever came first.
    FOR cap IN
        SELECT DISTINCT polname, rolname, pg_get_expr(polqual, polrelid) AS condition
        FROM pg_policy JOIN pg_class c ON c.oid = polrelid JOIN pg_roles r ON r.oid = ANY(polroles)
        WHERE NOT polpermissive AND polrelid <> guarded
            AND c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = guarded)
    LOOP
        EXECUTE format('CREATE POLICY %I ON %s AS RESTRICTIVE TO %I USING (%s)',
            cap.polname, guarded, cap.rolname, cap.condition);
    END LOOP;
END
$$;

SELECT guard('memory');
SELECT guard('memory_version');
SELECT guard('operation_batch');
SELECT guard('embedding_next');

-- Namespaces that have an index of their own, and what ranking needs to know of the rows that are not read.
-- `below`: with the namespaces below it. A row here means that the index is ready.
CREATE TABLE search_index (
    namespace text COLLATE "C" NOT NULL,
    below boolean NOT NULL,
    asked boolean NOT NULL, -- by somebody, and not made because of the size
    dimension integer NOT NULL,
    rows bigint NOT NULL,
    mean_length double precision NOT NULL,
    sample_namespaces text[] NOT NULL,
    sample_keys text[] NOT NULL,
    noted_at timestamptz NOT NULL,
    PRIMARY KEY (namespace, below)
);

-- The words that are frequent there: in how many rows, and the mean of their BM25 weight and of its square over all rows.
CREATE TABLE search_term (
    namespace text COLLATE "C" NOT NULL,
    below boolean NOT NULL,
    term text COLLATE "C" NOT NULL,
    frequency double precision NOT NULL,
    weight double precision NOT NULL,
    square double precision NOT NULL,
    PRIMARY KEY (namespace, below, term)
);

-- As of the other tables, the planner keeps no samples of what people said.
ALTER TABLE search_index ALTER COLUMN sample_keys SET STATISTICS 0;
ALTER TABLE search_term ALTER COLUMN term SET STATISTICS 0;

SELECT guard('search_index');
SELECT guard('search_term');

-- Compressed memories: keys and values of a language model, from which the text can be guessed at. What was saved
-- of a window never changes.
CREATE TABLE kv_memory (
    namespace text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    version bigint NOT NULL, -- begins at the time, in milliseconds: of two under one key, each has its own
    header jsonb NOT NULL,
    windows integer NOT NULL,
    bytes bigint NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (namespace, key)
) /* or partitioned */;

-- The bytes of each window, in parts: here, or in a file.
CREATE TABLE kv_part (
    namespace text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    seq integer NOT NULL, -- the number of the window
    part integer NOT NULL,
    last boolean NOT NULL, -- of its window
    sealed boolean NOT NULL,
    sha256 bytea NOT NULL, -- of the bytes as they are stored
    data bytea,
    file text, -- its name, below the directory that the store was given
    place bigint NOT NULL, -- where in the file it begins
    size integer NOT NULL,
    PRIMARY KEY (namespace, key, seq, part)
) /* or partitioned */;

-- They are dense already: compressing them is a waste of time.
ALTER TABLE kv_part ALTER COLUMN data SET STORAGE EXTERNAL;
ALTER TABLE kv_memory ALTER COLUMN key SET STATISTICS 0, ALTER COLUMN header SET STATISTICS 0;
ALTER TABLE kv_part
    ALTER COLUMN key SET STATISTICS 0, ALTER COLUMN sha256 SET STATISTICS 0, ALTER COLUMN data SET STATISTICS 0,
    ALTER COLUMN file SET STATISTICS 0;

SELECT guard('kv_memory');
SELECT guard('kv_part');

-- Operations that were refused for safety, until somebody releases or discards them.
CREATE TABLE quarantine (
    namespace text COLLATE "C" NOT NULL,
    id uuid NOT NULL,
    operation jsonb NOT NULL, -- with its name; secrets are masked before they come here
    code text NOT NULL,
    reason text NOT NULL,
    policy text NOT NULL, -- who proposed it
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (namespace, id)
) /* or partitioned */;

ALTER TABLE quarantine ALTER COLUMN operation SET STATISTICS 0, ALTER COLUMN reason SET STATISTICS 0;

SELECT guard('quarantine');

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
