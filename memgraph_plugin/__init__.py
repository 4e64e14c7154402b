"""Lasting memory for LangChain and LangGraph agents, on your own Postgres."""

__version__ = "0.1.0"
