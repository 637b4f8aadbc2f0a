"""Running trials somewhere: a resident worker here, or recorded curves played back."""
