"""The commands of `s2netd`, a file a topic; each imports what it needs when it runs."""
