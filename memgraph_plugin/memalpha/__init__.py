"""Mem-alpha (arXiv 2509.25911): a policy decides what to insert, update or delete; code validates it."""
