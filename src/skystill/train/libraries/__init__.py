"""What comes from other libraries: importing them, naming their errors, and reading files of weights safely."""
