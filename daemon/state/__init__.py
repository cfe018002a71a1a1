"""Where each camera's state is kept."""
