-- What was refused for safety, and waits.

-- name: hold
INSERT INTO {schema}.quarantine (namespace, id, operation, code, reason, policy, recorded_at)
VALUES (%s, %s, %s, %s, %s, %s, %s)

-- name: quarantined
-- The newest first.
SELECT namespace, id, operation, code, reason, policy, recorded_at
FROM {schema}.quarantine WHERE namespace = %(namespace)s ORDER BY recorded_at DESC, id

-- name: held
SELECT namespace, id, operation, code, reason, policy, recorded_at
FROM {schema}.quarantine WHERE namespace = %(namespace)s AND id = %(id)s

-- name: discard
DELETE FROM {schema}.quarantine WHERE namespace = %(namespace)s AND id = %(id)s RETURNING id
