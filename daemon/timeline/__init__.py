"""The timeline page: one HTML file that shows events, scores and what was really there."""
