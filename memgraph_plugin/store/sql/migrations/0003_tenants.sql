-- Rows that a session may not see do not exist for it.
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
