"""What must hold, whatever was done."""
