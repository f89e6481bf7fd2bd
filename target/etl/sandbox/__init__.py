"""Runs programs that nobody vouches for: little to see, little to use, and an end that is explained."""
