"""How fast it is: measurements, their results, and the tables made of them."""

import os

# As the allenact command sets them, before NumPy and torch are imported: no thread waits by spinning for long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
