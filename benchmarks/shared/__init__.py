"""What measurements are made of: none of these modules measures anything by itself."""
