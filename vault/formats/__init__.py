"""Documents that backends read and write: pure functions of bytes, without store, cache or network."""
