"""What knows nothing of sparsity: checks, compilation, tables."""
