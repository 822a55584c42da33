"""Trained networks: what a trial leaves (`part`), the whole as it is kept (`card`, `network`), and other forms of it."""
