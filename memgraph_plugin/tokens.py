"""How long a text is for a model, near enough to keep a budget by, without any model's tokenizer. Pure."""

from __future__ import annotations

import math
import re

CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
"""The letters of Chinese, Japanese and Korean, as a range within a pattern's brackets."""

_CJK_LETTER = re.compile(f"[{CJK}]")


def estimate_tokens(text: str) -> int:
    """About how many tokens a model makes of `text`: one for a CJK letter, a quarter for other letters."""
    cjk = len(_CJK_LETTER.findall(text))
    return cjk + math.ceil((len(text) - cjk) / 4)
