"""MemoRAG: a model keeps a compressed memory of a whole text and drafts clues from it; clues find evidence.

Qian et al., "MemoRAG: Boosting Long Context Processing with Global Memory-Enhanced Retrieval Augmentation"
(arXiv 2409.05591). `spec`, `clues` and `merge` are plain values; what else is here needs the extra `local`.
"""
