"""The commands. Each reads its arguments, calls one floor down and prints; heavy imports wait until they are needed."""
