"""PyTorch's side of the recorder: state, tensors, rows that processes share."""
