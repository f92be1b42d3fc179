"""Run configs, with underscores in the names of keys."""

from split_unlearning.simulations.config import RunConfig


def config_of(**settings):
    """Return the run config with these settings."""
    return RunConfig.from_mapping(
        {name.replace("_", "-"): value for name, value in settings.items()}
    )
