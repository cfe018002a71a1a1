"""The OpenVINO backend, and its own forms of a network for CPUs."""
