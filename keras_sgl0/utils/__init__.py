"""What knows nothing of models: argument checks, extras, tables."""
