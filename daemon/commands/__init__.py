"""The commands of `s2netd`, a file a topic; `daemon.cli` puts them together."""
