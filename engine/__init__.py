"""What training and production must do alike.

VideoChunk ─ frames ─▶ FrameBatch ─ snippets ─▶ Snippet ─ features ─▶ SnippetFeature
                                                                          │
ActionEvent ◀─ events ─ Proposal ◀─ scores ─ CasWindow ◀─ cas ─ FeatureWindow ◀─ windows
"""
