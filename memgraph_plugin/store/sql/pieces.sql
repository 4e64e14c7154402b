-- Pieces that statements say as {vector}, {row}, {that_row} and {said}.

-- name: query_vector
-- The vector of a question. Where another model made those in the database, the statement fails, naming both.
(SELECT CASE
    WHEN held.name = %(model)s AND held.dimension = %(dimension)s THEN %(vector)b::{vector_type}
    WHEN %(vector)b::{vector_type} IS NOT NULL
        THEN {schema}.refuse_model(held.name, held.dimension, %(model)s, %(dimension)s)::{vector_type}
    END FROM (SELECT) AS one_row LEFT JOIN {schema}.embedding_model AS held ON true)

-- name: row
-- What tells the rows of `memory` apart within one statement.
memory.ctid

-- name: that_row
memory.ctid = top.id AND {scope}

-- name: part_row
-- A ctid is unique within its partition only.
ROW(memory.tableoid, memory.ctid)::{schema}.place

-- name: that_part_row
memory.tableoid = (top.id).part AND memory.ctid = (top.id).line AND {scope}

-- name: said
-- Whether there is a text to embed; a sealed memory may have one.
(memory.text ~ '\S' OR memory.value ? '$sealed')
