"""A trained selector of any kind, read back from its folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from memgraph_plugin.errors import MissingExtraError
from memgraph_plugin.selfmem.linear_kl import LinearKLSelector
from memgraph_plugin.selfmem.trained import read_training

if TYPE_CHECKING:
    from memgraph_plugin.selfmem.kl import KLSelector


def load_selector(folder: Path, *, task: str = "", language: str = "") -> LinearKLSelector | KLSelector:
    """The selector in a folder, of whichever kind it is.

    Raises:
        ConfigurationError: there is none.
        FingerprintMismatch: it was trained for another task or language.
        MissingExtraError: it needs an extra that is not installed.
    """
    if read_training(folder, task=task, language=language)[0].kind == "linear":
        return LinearKLSelector.load(folder, task=task, language=language)
    try:
        from memgraph_plugin.selfmem.kl import KLSelector
    except ImportError as error:
        raise MissingExtraError("local", "A trained selector") from error
    return KLSelector.load(folder, task=task, language=language)
