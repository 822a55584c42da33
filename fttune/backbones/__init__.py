"""Pre-trained networks as sequences of the paper's layers."""
