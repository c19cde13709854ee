"""The one exception type for input a user can mend."""

from __future__ import annotations


class NucSegError(ValueError):
    """Bad input, told in one sentence: the offending value, the rule, and the way out.

    The command line prints it and exits with 2; the plugin shows it as a notification.
    """
