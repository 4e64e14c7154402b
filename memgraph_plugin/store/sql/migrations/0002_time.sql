-- What it takes to know what was so when, and to bring a version back. Versions from before have NULL here.
ALTER TABLE memory_version
    ADD COLUMN valid_to timestamptz,
    ADD COLUMN language text,
    ADD COLUMN ttl double precision, -- minutes
    ADD COLUMN restores integer; -- the version that an undo went back to
