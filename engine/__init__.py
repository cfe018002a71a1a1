"""What training and production must do alike: the stages from video to events, and models.

No broker, event loop, configuration file or trainer is known here.

VideoChunk ─ frames ─▶ FrameBatch ─ snippets ─▶ Snippet ─ features ─▶ SnippetFeature
                                                                          │
ActionEvent ◀─ events ─ Proposal ◀─ scores ─ CasWindow ◀─ cas ─ FeatureWindow ◀─ windows
"""
