"""Archives (.mar files): build them, verify them from outside, and serve them with TorchServe."""
