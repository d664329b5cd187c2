"""Recipe and headers become a plan of every output byte. Pure: no weight is read."""
