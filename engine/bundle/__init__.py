"""The model bundle: the contract between training and production, read, verified and written."""
