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

-- As of the other tables, the planner keeps no samples of what people said.
ALTER TABLE kv_memory ALTER COLUMN key SET STATISTICS 0, ALTER COLUMN header SET STATISTICS 0;
ALTER TABLE kv_part
    ALTER COLUMN key SET STATISTICS 0, ALTER COLUMN sha256 SET STATISTICS 0, ALTER COLUMN data SET STATISTICS 0,
    ALTER COLUMN file SET STATISTICS 0;

SELECT guard('kv_memory');
SELECT guard('kv_part');
