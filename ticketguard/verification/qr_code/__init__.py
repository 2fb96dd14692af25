"""The QR code as it is read from weights."""
