"""Chunk or file → pictures at model size, and footage → chunks. Only here is av imported.

From pictures to snippets it goes on in `engine.snippets`.
"""
