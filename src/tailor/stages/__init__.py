"""What one does with a network: analyze, train, compress, certify."""
