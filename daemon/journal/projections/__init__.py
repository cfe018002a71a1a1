"""Where a local journal's events are shown to other programs: a file of lines, or a topic."""
