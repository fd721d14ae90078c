"""Recording: what the hook writes while a model trains."""
