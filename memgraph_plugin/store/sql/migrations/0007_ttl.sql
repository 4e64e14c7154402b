-- What sweeping looks for: memories that have expired, and deleted ones whose history was meant to expire.

CREATE INDEX memory_expires_at ON memory (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX memory_version_expires_at ON memory_version (expires_at)
    WHERE operation = 'delete' AND expires_at IS NOT NULL;
