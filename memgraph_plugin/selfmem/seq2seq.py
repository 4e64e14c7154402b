"""Generators that are trained: an encoder and a decoder that reads source and memory.

Cheng et al., "Lift Yourself Up" (arXiv 2305.02437, section 2.3): the joint encoder reads both as one text,
the dual encoder reads them apart, and its decoder attends to the one and then to the other.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from math import inf
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from memgraph_plugin.errors import ConfigurationError, FingerprintMismatch
from memgraph_plugin.models.weights import quiet
from memgraph_plugin.selfmem.beams import Output, search
from memgraph_plugin.selfmem.network import Network, Reading
from memgraph_plugin.selfmem.tokens import Tokens
from memgraph_plugin.types import Candidate, Request

FORMAT = "memgraph-generator/1"
ABOUT, MEMORY_ATTENTION = "selfmem.json", "memory_attention.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How a trained generator writes.

    Args:
        beams: width of the search for a hypothesis; for candidates it is their number.
        max_tokens: of an output.
        stretch: an output has at most so many tokens for each of the longer of source and memory, and ten; 0
            for `max_tokens` alone.
        min_tokens: of an output.
        length_penalty: the exponent of the length that a total is divided by.
        margin: candidates so many nats less likely than the best are given up, which is faster, and leaves
            fewer of them; 0 to give up none.
        max_source, max_memory: tokens that are read of each; of a joint model's, of both together.
    """

    beams: int = 5
    max_tokens: int = 128
    stretch: float = 2.0
    min_tokens: int = 1
    length_penalty: float = 1.0
    margin: float = 0.0
    max_source: int = 256
    max_memory: int = 128

    def __post_init__(self) -> None:
        if min(self.beams, self.max_tokens, self.max_source, self.max_memory) < 1:
            raise ConfigurationError(f"{self}: beams and lengths are at least 1")
        if min(self.margin, self.stretch, self.min_tokens) < 0:
            raise ConfigurationError(f"{self}: margin, stretch and min_tokens are not negative")


class Seq2Seq(ABC):
    """What both generators share. `n` candidates are those of a beam search `n` wide (the paper's: 50)."""

    kind: ClassVar[str]

    def __init__(
        self,
        network: Network,
        tokens: Tokens,
        decoding: Decoding | None = None,
        *,
        trained_on: Mapping[str, str] | None = None,
    ) -> None:
        self.network = network.eval()
        self.tokens = tokens
        self.decoding = decoding or Decoding()
        self.trained_on = dict(trained_on or {})

    @classmethod
    def from_pretrained(cls, name: str, decoding: Decoding | None = None) -> Any:
        """A BART or a Marian by name or path, as it is; a dual one has still to learn to read a memory.

        Raises:
            ConfigurationError: there is none, or it is of another make.
        """
        base, tokens = _pretrained(name)
        return cls(
            Network(base, cls.kind == "dual").to(device()), tokens, decoding, trained_on={"base": name}
        )

    @classmethod
    def load(cls, folder: Path, decoding: Decoding | None = None) -> Any:
        """A generator that was saved; with the settings it was saved with where none are given.

        Raises:
            ConfigurationError: there is no such generator in the folder.
            FingerprintMismatch: the weights or the tokenizer are not those that were saved.
        """
        about = read_about(folder)
        if about["kind"] != cls.kind:
            raise ConfigurationError(f"{folder} holds a {about['kind']} generator, not a {cls.kind} one")
        base, tokens = _pretrained(str(folder))
        network = Network(base, cls.kind == "dual")
        try:
            if network.dual:
                network.memory_attention.load_state_dict(load_file(folder / MEMORY_ATTENTION))
        except (OSError, RuntimeError, SafetensorError) as error:
            raise FingerprintMismatch(f"The memory attention in {folder} is not whole: {error}") from error
        found = cls(
            network, tokens, decoding or Decoding(**about["decoding"]), trained_on=about["trained_on"]
        )
        for name in ("weights", "tokenizer"):
            if found.fingerprint[name] != about["fingerprint"][name]:
                raise FingerprintMismatch(f"The {name} in {folder} are not those that were saved.")
        network.to(device())
        return found

    def save(self, folder: Path) -> None:
        """Write it in transformers' form, with what a dual model has besides, and its fingerprint."""
        with quiet():
            self.network.base.save_pretrained(folder)
        self.tokens.tokenizer.save_pretrained(folder)
        if self.network.dual:
            save_file(dict(self.network.memory_attention.state_dict()), folder / MEMORY_ATTENTION)
        about = {
            "format": FORMAT,
            "kind": self.kind,
            "decoding": asdict(self.decoding),
            "trained_on": self.trained_on,
            "fingerprint": self.fingerprint,
        }
        (folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n", "utf-8")

    @property
    def fingerprint(self) -> dict[str, str]:
        return {
            "generator": self.kind,
            "weights": self._weights,
            "tokenizer": self.tokens.digest,
            **{f"decoding.{name}": str(value) for name, value in asdict(self.decoding).items()},
            **{f"trained_on.{name}": value for name, value in self.trained_on.items()},
        }

    @cached_property
    def _weights(self) -> str:
        return self.network.digest()

    def candidates(self, requests: Sequence[Request], n: int, *, seed: int = 0) -> list[list[Candidate]]:  # noqa: ARG002
        """At most `n` different outputs for each request, likeliest first. Beams need no `seed`.

        Fewer where tokens of several spell the same text, or where a source has no more within the limits.
        """
        if n < 1:
            raise ConfigurationError(f"n={n}: at least one candidate must be asked for")
        return self._write(requests, n, self.decoding.margin or inf)

    def hypotheses(self, requests: Sequence[Request], *, seed: int = 0) -> list[Candidate]:  # noqa: ARG002
        """The likeliest output for each request."""
        return [pool[0] for pool in self._write(requests, self.decoding.beams)]

    @abstractmethod
    def inputs(self, source: str, memory: str) -> list[list[int]]:
        """The ids that are read: one text of a joint generator, two of a dual one."""

    def _write(self, requests: Sequence[Request], width: int, margin: float = inf) -> list[list[Candidate]]:
        """Each different pair of source and memory once, in batches of similar length."""
        asked = list(dict.fromkeys((request.source, request.memory) for request in requests))
        texts = [self.inputs(*pair) for pair in asked]
        order = sorted(range(len(asked)), key=lambda i: (len(texts[i][0]), len(texts[i][-1])))
        written: dict[tuple[str, str], list[Candidate]] = {}
        size = max(1, self._rows // width)
        for batch in (order[first : first + size] for first in range(0, len(order), size)):
            outputs = self._search([texts[i] for i in batch], width, margin)
            written |= {asked[i]: self._pool(each) for i, each in zip(batch, outputs, strict=True)}
        return [list(written[request.source, request.memory]) for request in requests]

    def _search(self, texts: Sequence[list[list[int]]], width: int, margin: float) -> list[list[Output]]:
        how, config = self.decoding, self.network.base.config
        most = min(how.max_tokens, int(config.max_position_embeddings) - 1)
        longest = [max(map(len, each)) for each in texts]
        limits = [min(most, int(how.stretch * size) + 10) if how.stretch else most for size in longest]
        with torch.inference_mode():
            readings = self._read(texts)
        unwanted = {config.pad_token_id, self.tokens.tokenizer.unk_token_id, config.decoder_start_token_id}
        return search(
            self.network,
            readings,
            width,
            limits,
            start=config.decoder_start_token_id,
            end=config.eos_token_id,
            banned=sorted(unwanted - {None, config.eos_token_id}),
            shortest=how.min_tokens,
            margin=margin,
        )

    def _read(self, texts: Sequence[list[list[int]]]) -> list[Reading]:
        pad, where = self.network.base.config.pad_token_id, self.network.device
        return self.network.read([padded(each, pad, where) for each in zip(*texts, strict=True)])

    def _pool(self, outputs: Sequence[Output]) -> list[Candidate]:
        """The outputs as texts, best first, each text once, as its likeliest tokens have it."""
        ranked = sorted(outputs, key=lambda output: -output.score(self.decoding.length_penalty))
        pool: dict[str, Candidate] = {}
        for output in ranked:
            text = self.tokens.text(output.ids)
            pool.setdefault(text, Candidate(text, output.score(1.0)))
        return list(pool.values())

    @property
    def _rows(self) -> int:
        """Outputs written side by side: enough to keep the device busy, few enough for its caches."""
        return 4096 if self.network.device.type == "cuda" else 256


class JointSeq2Seq(Seq2Seq):
    """Source and memory are one text, x [SEP] m; where they are too long, the longer loses its end first."""

    kind = "joint"

    def inputs(self, source: str, memory: str) -> list[list[int]]:
        before, end = self.tokens.around
        x, m = self.tokens.source(source), self.tokens.target(memory)
        room = min(
            self.decoding.max_source + self.decoding.max_memory,
            int(self.network.base.config.max_position_embeddings) - len(before) - 2,
        )
        kept = min(len(m), max(room // 2, room - len(x)))
        return [[*before, *x[: room - kept], end, *m[:kept], end]]


class DualSeq2Seq(Seq2Seq):
    """One encoder reads source and memory apart; the decoder attends to the source, then to the memory."""

    kind = "dual"

    def inputs(self, source: str, memory: str) -> list[list[int]]:
        before, end = self.tokens.around
        most = int(self.network.base.config.max_position_embeddings) - len(before) - 1
        x = self.tokens.source(source)[: min(most, self.decoding.max_source)]
        m = self.tokens.target(memory)[: min(most, self.decoding.max_memory)]
        return [[*before, *x, end], [*before, *m, end]]


def padded(texts: Sequence[Sequence[int]], pad: int, device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids [B, S] and their mask, 1 where there is text."""
    width = max(map(len, texts))
    ids = torch.tensor([[*text, *[pad] * (width - len(text))] for text in texts], device=device)
    lengths = torch.tensor([len(text) for text in texts], device=device)
    return ids, (torch.arange(width, device=device) < lengths[:, None]).long()


def read_about(folder: Path) -> dict[str, Any]:
    """What is known of a saved generator: its kind, settings, what it was trained on, its fingerprint.

    Raises:
        ConfigurationError: there is none in the folder.
    """
    try:
        about: dict[str, Any] = json.loads((folder / ABOUT).read_text("utf-8"))
        if about["format"] != FORMAT:
            raise ConfigurationError(
                f"{folder} holds a generator of the form {about['format']}, not {FORMAT}"
            )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{folder} holds no generator: {error}") from error
    return about


def load_generator(folder: Path, decoding: Decoding | None = None) -> Seq2Seq:
    """The generator in a folder, of whichever kind.

    Raises:
        ConfigurationError, FingerprintMismatch: as `Seq2Seq.load` does.
    """
    kinds: dict[str, type[Seq2Seq]] = {each.kind: each for each in (JointSeq2Seq, DualSeq2Seq)}
    kind = read_about(folder)["kind"]
    if kind not in kinds:
        raise ConfigurationError(f"{folder} holds a generator of an unknown kind: {kind!r}")
    generator: Seq2Seq = kinds[kind].load(folder, decoding)
    return generator


def _pretrained(name: str) -> tuple[Any, Tokens]:
    try:
        with quiet():
            model = AutoModelForSeq2SeqLM.from_pretrained(name, dtype=torch.float32)
            return model, Tokens(AutoTokenizer.from_pretrained(name))
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigurationError(
            f"no sequence-to-sequence model could be loaded from {name!r}: {reason}"
        ) from error


def device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
