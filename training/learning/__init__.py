"""Tagged features → a trained run."""
