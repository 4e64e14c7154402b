"""Beam search for a batch of sources, each with as many outputs under way as it still lacks.

Departs from transformers' search, in the manner of the first translation models (Bahdanau et al., arXiv
1409.0473): an output that ends leaves the beam, and the beam is one narrower from then on. A wide beam
thereby costs less with every output that it has found, ends by itself, and finds as many as were asked for;
a beam of one is greedy search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

import torch

from memgraph_plugin.selfmem.network import Network, Reading, Written


@dataclass(frozen=True, slots=True)
class Output:
    """Tokens without the one that ends them, and the sum of the log probabilities of all."""

    ids: list[int]
    total: float
    ended: bool = True

    def score(self, length_penalty: float) -> float:
        return self.total / float((len(self.ids) + self.ended) ** length_penalty)


@dataclass(slots=True)
class _Beam:
    """What is under way: B sources, W outputs each; a total of -inf says that there is none."""

    readings: list[Reading]
    owners: list[int]
    lacking: torch.Tensor
    totals: torch.Tensor
    tokens: torch.Tensor
    written: Written = field(default_factory=Written)


@torch.inference_mode()
def search(
    network: Network,
    readings: list[Reading],
    width: int,
    limits: Sequence[int],
    *,
    start: int,
    end: int,
    banned: Sequence[int] = (),
    shortest: int = 1,
    margin: float = inf,
) -> list[list[Output]]:
    """At most `width` outputs for each source that was read, in no order.

    Args:
        limits: tokens at most, for each source; what has not ended by then is given back only where nothing
            has.
        start, end: the ids that begin and end an output.
        banned: ids that no output has.
        shortest: tokens at least.
        margin: an output is given up when it is so many nats less likely than the source's best of that
            length, or than one that has ended.
    """
    count, device = len(limits), network.device
    found: list[list[Output]] = [[] for _ in limits]
    limit = torch.tensor(limits, device=device)
    best = torch.full((count,), -inf, device=device)
    beam = _Beam(
        readings,
        list(range(count)),
        torch.full((count,), width, device=device),
        torch.zeros(count, 1, device=device),
        torch.full((count, 1, 1), start, device=device),
    )
    for length in range(1, max(limits, default=0) + 1):
        states = network.states(beam.tokens[:, :, -1].reshape(-1, 1), beam.readings, beam.written)
        logits = network.logits(states[:, 0]).float()
        logits[:, [*banned, *([end] if length <= shortest else [])]] = -inf
        values, parents, tokens = _best(beam.totals, logits.log_softmax(-1), int(beam.lacking.max()))
        places = torch.arange(values.shape[1], device=device)
        values = values.masked_fill(places >= beam.lacking[:, None], -inf)
        alive = values > (torch.maximum(best, values[:, 0]) - margin)[:, None]
        ends = alive & (tokens == end)
        best = torch.maximum(best, values.masked_fill(~ends, -inf).amax(1))
        for row, place in ends.nonzero().tolist() if bool(ends.any()) else ():
            ids = beam.tokens[row, parents[row, place], 1:].tolist()
            found[beam.owners[row]].append(Output(ids, float(values[row, place])))
        beam.lacking = beam.lacking - ends.sum(1)
        alive &= ~ends
        if (over := limit <= length).any():
            _cut(beam, values, parents, tokens, alive & over[:, None], found)
            alive &= ~over[:, None]
        going = alive.any(1)
        if not going.any():
            break
        rows = going.nonzero()[:, 0]
        limit, best = limit[rows], best[rows]
        _advance(beam, rows, values, parents, tokens, alive)
    return found


def _best(totals: torch.Tensor, logprobs: torch.Tensor, count: int) -> tuple[torch.Tensor, ...]:
    """The likeliest continuations [B, count] of each source's outputs: totals, which output, which token."""
    sources, width = totals.shape
    size = logprobs.shape[-1]
    sums = (totals.view(-1, 1) + logprobs).view(sources, width * size)
    values, places = sums.topk(min(count, width * size))
    return values, places // size, places % size


def _cut(
    beam: _Beam,
    values: torch.Tensor,
    parents: torch.Tensor,
    tokens: torch.Tensor,
    alive: torch.Tensor,
    found: list[list[Output]],
) -> None:
    """Give back the likeliest of what has not ended, for sources that have nothing else."""
    for row, place in alive.nonzero().tolist():
        if not found[beam.owners[row]]:
            ids = [*beam.tokens[row, parents[row, place], 1:].tolist(), int(tokens[row, place])]
            found[beam.owners[row]].append(Output(ids, float(values[row, place]), ended=False))


def _advance(
    beam: _Beam,
    rows: torch.Tensor,
    values: torch.Tensor,
    parents: torch.Tensor,
    tokens: torch.Tensor,
    alive: torch.Tensor,
) -> None:
    """Go on with the outputs that live, of the sources that have some, side by side."""
    width = int(alive.sum(1).max())
    order = (~alive).to(torch.uint8).argsort(dim=1, stable=True)[rows, :width]
    values = values.masked_fill(~alive, -inf)[rows].gather(1, order)
    parents, tokens = parents[rows].gather(1, order), tokens[rows].gather(1, order)
    beam.written.rows((rows[:, None] * beam.totals.shape[1] + parents).flatten())
    before = beam.tokens[rows[:, None], parents]
    beam.tokens, beam.totals = torch.cat([before, tokens[:, :, None]], dim=2), values
    if len(rows) < len(beam.owners):
        beam.owners = [beam.owners[row] for row in rows.tolist()]
        beam.lacking = beam.lacking[rows]
        beam.readings = [reading.rows(rows) for reading in beam.readings]
