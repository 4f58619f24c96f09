"""AllenAct experiments on today's stack."""

from allenact import _out_of_scope

__version__ = "0.1.0"

_out_of_scope.install()
