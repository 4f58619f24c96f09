"""Plugins: tasks, sensors and models for particular environments."""

import allenact  # noqa: F401 - it explains imports of the plugins that are not here
