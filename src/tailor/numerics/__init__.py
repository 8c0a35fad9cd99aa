"""Mathematics on tensors and numbers; knows no model, file or plot."""
