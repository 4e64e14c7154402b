"""Every error that this package raises on purpose.

MemgraphPluginError
├── ConfigurationError          a setting or an argument cannot work
│   ├── MissingExtraError       an optional dependency is not installed
│   └── MissingNamespaceError   nobody said whose memory this is
├── StoreError                  the database refused, or is not there
│   ├── DatabaseUnavailable     no connection could be made
│   ├── NamespaceDenied         row-level security keeps this role out of the namespace
│   ├── MemoryNotFound
│   ├── BatchNotFound
│   ├── VersionConflict
│   ├── SchemaOutOfDate
│   ├── EmbeddingMismatch       the store was filled by another embedding model
│   ├── InvalidValue            a value cannot be stored as JSON text
│   ├── InvalidExport           what is to be imported is no whole export
│   ├── NamespaceTaken          an import would mix with what is there
│   └── SealBroken              a sealed memory cannot be opened
├── ModelUnavailable            a model cannot be reached, fetched or loaded
├── ModelReplyError             a model's reply has not the shape it was asked for; keeps the raw reply
├── OperationRejected           an operation broke a rule; has a code and a reason
└── FingerprintMismatch         downloaded or stored bytes are not the expected ones

The docstring of a class is its default message.
"""


class MemgraphPluginError(Exception):
    """memgraph_plugin failed."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip())


class ConfigurationError(MemgraphPluginError):
    """A setting or an argument cannot work."""


class MissingExtraError(ConfigurationError):
    """An optional dependency is not installed."""

    def __init__(self, extra: str, needed_for: str) -> None:
        self.extra = extra
        super().__init__(f'{needed_for} needs an optional part: pip install "memgraph-plugin[{extra}]"')


class MissingNamespaceError(ConfigurationError):
    """No namespace: pass context=MemoryContext(user_id=...), or "user_id" in the config's "configurable"."""


class StoreError(MemgraphPluginError):
    """The memory store failed."""


class DatabaseUnavailable(StoreError):
    """No connection to Postgres could be made; `memgraph-plugin doctor` says why."""


class NamespaceDenied(StoreError):
    """This role may not write to this namespace."""


class MemoryNotFound(StoreError):
    """There is no such memory in this namespace."""


class BatchNotFound(StoreError):
    """There is no such batch in this namespace; `memgraph-plugin log` lists them."""


class VersionConflict(StoreError):
    """The memory was changed by somebody else since it was read; read it again and retry."""


class SchemaOutOfDate(StoreError):
    """The database schema is older or newer than this package; run `memgraph-plugin migrate`."""


class EmbeddingMismatch(StoreError):
    """The store holds vectors of another embedding model."""


class InvalidValue(StoreError, ValueError):
    """A value cannot be stored: it must be JSON without NaN, infinities and NUL characters."""


class InvalidExport(StoreError, ValueError):
    """These lines are no whole export of this format; nothing was imported."""


class NamespaceTaken(StoreError):
    """The namespace holds other memories already; nothing was imported."""


class SealBroken(StoreError):
    """A sealed memory cannot be opened: the key is missing or wrong, or the memory was tampered with."""


class ModelUnavailable(MemgraphPluginError):
    """A model cannot be reached, fetched or loaded."""


class ModelReplyError(MemgraphPluginError):
    """A model's reply did not have the shape it was asked for."""

    def __init__(self, message: str, raw: str) -> None:
        self.raw = raw
        super().__init__(message)


class OperationRejected(MemgraphPluginError):
    """An operation broke a rule and was not applied."""

    def __init__(self, code: str, reason: str) -> None:
        self.code = code
        self.reason = reason
        super().__init__(f"{code}: {reason}")


class FingerprintMismatch(MemgraphPluginError):
    """The bytes are not the expected ones (sha256 differs); nothing was kept."""
