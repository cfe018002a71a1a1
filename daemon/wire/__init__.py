"""The formats: chunks as they come in, event records as they go out."""
