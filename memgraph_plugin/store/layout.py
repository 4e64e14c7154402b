"""How the tables lie on disk: chosen when they are made, and read back from the catalog ever after. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pgvector import HalfVector, Vector

from memgraph_plugin.errors import ConfigurationError

VectorType = Literal["halfvec", "vector"]

PARTITIONS = range(2, 1025)
"""How many partitions there may be; Postgres plans ever more slowly with more."""

_PARTITIONED = re.compile(r"CREATE TABLE (\w+) \([^;]*?\n\) (/\* or partitioned \*/);")


@dataclass(frozen=True, slots=True)
class Layout:
    """`partitions`: by hash of the namespace; 0: none. `vector_type`: halfvec takes half the room."""

    partitions: int = 0
    vector_type: VectorType = "halfvec"

    @classmethod
    def chosen(cls, partitions: int | None, vector_type: str | None) -> Layout:
        """The layout with these choices, None being none.

        Raises:
            ConfigurationError: there is no such layout.
        """
        if partitions is not None and partitions not in PARTITIONS:
            raise ConfigurationError(
                f"{partitions} partitions cannot be; {PARTITIONS[0]} to {PARTITIONS[-1]} can."
            )
        for known in get_args(VectorType):
            if vector_type in (None, known):
                return cls(partitions or 0, known)
        raise ConfigurationError(f"Vectors are stored as halfvec or vector, not as {vector_type!r}.")

    @classmethod
    def found(cls, record: Mapping[str, Any]) -> Layout:
        """The layout that the statement `layout` read."""
        return cls(record["partitions"], record["vector_type"])

    def __str__(self) -> str:
        parts = f"{self.partitions} partitions" if self.partitions else "no partitions"
        return f"{parts}, vectors as {self.vector_type}"

    def schema(self, text: str) -> str:
        """`schema.sql` in this layout."""
        text = self.migration(re.sub(r"\bhalfvec\b", self.vector_type, text))
        return f"CREATE TYPE place AS (part oid, line tid);\n\n{text}" if self.partitions else text

    def migration(self, text: str) -> str:
        """Tables that come later, in this layout."""
        return _PARTITIONED.sub(self._partitioned, text) if self.partitions else text

    def _partitioned(self, found: re.Match[str]) -> str:
        """A table and its partitions. Nobody reads those but through the table, whose policies then hold."""
        table = found[1]
        whole = found[0].replace(found[2], "PARTITION BY HASH (namespace)")
        parts = (
            f"CREATE TABLE {name} PARTITION OF {table} "
            f"FOR VALUES WITH (MODULUS {self.partitions}, REMAINDER {remainder});\n"
            f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;"
            for remainder in range(self.partitions)
            for name in [f"{table}_{remainder:0{len(str(self.partitions - 1))}}"]
        )
        return "\n".join([whole, *parts])

    def vector(self, values: Sequence[float]) -> HalfVector | Vector:
        """A vector as the column takes it."""
        return HalfVector(list(values)) if self.vector_type == "halfvec" else Vector(list(values))
