"""What loading a kernel takes on any CPU: its image, and ranges of guest memory."""
