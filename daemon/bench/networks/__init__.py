"""What the CPU or a GPU does with a bundle's two networks, without a daemon around them."""
