"""Makes the fixtures known to every test."""
