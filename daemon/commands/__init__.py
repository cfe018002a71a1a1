"""The commands of `s2netd`: options, and which function of the daemon they call, a file a topic.

Each imports what it needs when it runs; what it then does is not here.
"""
