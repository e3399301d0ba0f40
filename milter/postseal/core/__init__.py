"""Pure core: bytes and values in, values out. No clock, file, socket, log or thread; time is the argument ``at``."""
