"""The errors of segq under a public name: `from segq.errors import Full` is the same as `from segq import Full`."""

from segq._core.base.errors import *  # noqa: F403
from segq._core.base.errors import _rebuild  # noqa: F401  # pickles name it here
