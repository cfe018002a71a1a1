"""`s2netd check`: a configuration → all that would keep a daemon from running with it.

Nothing is started and nothing is changed. What a broker and a device say is asked upon request.
"""
