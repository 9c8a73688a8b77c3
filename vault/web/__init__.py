"""What clients see: URLs, status codes, header fields, the access log."""
