-- Row-level security and roles.

-- name: row_security
-- Whether row-level security binds this role: neither a superuser nor one with BYPASSRLS.
SELECT row_security_active(format('%%I.memory', %(schema)s::text)::regclass) AS active
