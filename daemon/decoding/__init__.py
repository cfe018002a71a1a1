"""Chunks → frames, many cameras at the same time: in processes of their own, or in threads."""
