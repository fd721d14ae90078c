"""Where batches come from, in the committed order or as a stream yields them."""
