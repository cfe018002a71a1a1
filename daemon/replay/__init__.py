"""`s2netd replay` and `s2netd features`: the feature log of the past, read once more.

The log holds every feature that a daemon made, so another localizer can be run over last night
without a decoder or a backbone, and stretches of it can be exported to train on.
"""
