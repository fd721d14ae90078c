"""From a program to circuits: vectors, identities, random combinations, parts."""
