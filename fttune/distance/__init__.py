"""How far a target's images lie from the images a backbone was trained on."""
