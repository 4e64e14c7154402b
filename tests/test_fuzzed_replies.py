"""Thousands of replies that no model should give: no crash, nothing invalid applied, all refusals told."""

from __future__ import annotations

import os

import pytest

from tests.fuzzed_replies import run

REPLIES = int(os.environ.get("MEMGRAPH_PLUGIN_FUZZED_REPLIES", "500"))
"""MEMGRAPH_PLUGIN_FUZZED_REPLIES=10000 is the whole of it."""


@pytest.mark.timeout(3600)
def test_whatever_a_model_replies_nothing_invalid_is_applied() -> None:
    done = run(REPLIES, seed=20240501)
    print(done.applied, done.rejected, done.policies)  # noqa: T201 - shown with -s
    assert done.faults == []
    assert done.replies == REPLIES
    assert {"insert", "update", "delete"} <= set(done.applied)
    assert {"unknown_handle", "unknown_tool", "delete_all", "read_only", "too_many"} <= set(done.rejected)
