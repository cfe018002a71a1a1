"""What a camera costs besides decoding and networks, however many there are."""
