"""Does it help? Measurements with seeds and intervals, kept as JSON with the command that made them."""
