"""Loading Linux: image formats, the zero page, the command line."""
