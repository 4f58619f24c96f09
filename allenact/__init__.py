"""AllenAct experiments on today's stack."""

from allenact import _out_of_scope
from allenact.utils.legacy_imports import install_legacy_aliases

__version__ = "0.1.0"

_out_of_scope.install()
install_legacy_aliases()  # scripts import experiment files themselves, and these say `import gym`
