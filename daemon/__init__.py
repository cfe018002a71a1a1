"""The process `s2netd`: transports, event loop, configuration, commands and pages.

What is computed on the way from a chunk to an event is in `engine`; training is in `training`.
"""
