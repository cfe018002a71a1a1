"""`s2netd demo`: a fresh scene, or your own clip, streamed through the real daemon."""
