"""Measures; see README.md."""
