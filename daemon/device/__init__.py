"""What computes the networks: whose request is next, and the one thread that makes calls."""
