"""`s2netd demo`: a fresh scene, or your own clip, streamed through the real daemon.

Scenes are drawn in `engine.scenes`, the page is drawn in `daemon.timeline`.
"""
