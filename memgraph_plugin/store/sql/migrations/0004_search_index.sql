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
