"""A GGUF file made into a directory that transformers loads in seconds: bf16 safetensors and a tokenizer."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from memgraph_plugin.models.weights import quiet


def convert_gguf(gguf: Path, directory: Path) -> None:
    """Write the model, its tokenizer and its chat template to `directory`, which is made.

    An output matrix of its own in the file stays one: it is quantised unlike the embedding it was tied to.
    """
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(**source)
        model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.bfloat16)
        # The weights are dequantised by now, but transformers takes them for quantised, and won't save them.
        model.hf_quantizer = None  # type: ignore[assignment]
        for attribute in ("is_quantized", "quantization_method"):
            if hasattr(model, attribute):
                delattr(model, attribute)
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
