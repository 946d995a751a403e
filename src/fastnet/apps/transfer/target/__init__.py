"""What the receiver writes: paths, partial files, journals and final names."""
