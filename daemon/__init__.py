"""The imperative shell: transports, event loop, configuration, operations."""
