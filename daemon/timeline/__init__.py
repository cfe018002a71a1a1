"""The timeline page: one HTML file that shows events, scores and what was really there.

It is drawn of what it is given; scores and pictures are gathered in `daemon.localize` and
`daemon.demo`.
"""
