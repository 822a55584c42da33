"""Trained networks: what a trial leaves of one, the whole as it is kept, and the forms in which it is given away."""
