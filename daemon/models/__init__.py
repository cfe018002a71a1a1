"""Models in the daemon: read, opened, held, replaced while cameras are served, pulled."""
