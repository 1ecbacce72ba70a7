"""The extras of setup.cfg. Scripts read this before Keras can be imported.

So this module imports nothing.
"""

# The extra that brings a package, by the name the package is imported by. The
# library cannot be imported without the last three; only scripts miss them.
EXTRAS = {
    "absl": "experiments",
    "matplotlib": "plot",
    "optuna": "search",
    "sklearn": "experiments",
    "submitit": "cluster",
    "tensorflow": "experiments",
    "tensorflow_datasets": "experiments",
    "tqdm": "experiments",
    "keras": "experiments",
    "numpy": "experiments",
    "rich": "experiments",
}


def missing_package(problem: ModuleNotFoundError) -> str | None:
    """Returns the package that was not found, `None` if no extra brings it.

    Args:
        problem: What an import raised.
    """
    package = (problem.name or "").partition(".")[0]
    return package if package in EXTRAS else None


def how_to_install(package: str) -> str:
    """Returns the line that names the extra of a missing package.

    Args:
        package: A name in `EXTRAS`.
    """
    return (
        f"{package} is not installed. Try: "
        f"pip install 'keras_sgl0[{EXTRAS[package]}]'"
    )
