"""How good a signature is, a measure a file. Arrays in, numbers out; nothing here is fitted to keep."""
