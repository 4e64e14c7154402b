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

-- As of the other tables, the planner keeps no samples of what people said.
ALTER TABLE quarantine ALTER COLUMN operation SET STATISTICS 0, ALTER COLUMN reason SET STATISTICS 0;

SELECT guard('quarantine');
