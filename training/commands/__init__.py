"""The commands of ``s2net``, by what they work on; each imports what it needs when it runs."""
