"""The laboratory: data sets, recipes, runs, sweeps and plots."""
