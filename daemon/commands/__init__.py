"""The commands of `s2netd`, one file for each topic: their options, and the function they call.

A command imports what it needs when it runs. What it then does is in the rest of `daemon`.
"""
