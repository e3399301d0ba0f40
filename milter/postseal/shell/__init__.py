"""Edges: pymilter callbacks, the lookup server, the command line. Convert, delegate, convert back."""
