"""The tables of the documentation: what each part is worth, measured anew."""
