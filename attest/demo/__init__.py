"""The story `pot demo` tells: one real run from data to verdict, then seven forgeries of it."""
