"""Selfmem: the model's own best candidate becomes the memory of its next round.

Cheng et al., "Lift Yourself Up: Retrieval-augmented Text Generation with Self Memory" (arXiv 2305.02437).
"""
