"""The contenders, a small program each."""
