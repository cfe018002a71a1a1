"""The timeline page: one HTML file that shows events, scores and what really happened.

It is drawn from values that it is given; `daemon.localize` and `daemon.demo` gather them.
"""
