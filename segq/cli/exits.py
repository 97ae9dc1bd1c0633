"""Exit codes of the command, the same for all verbs; `segq --help` prints them."""

OK = 0
FAILED = 1  # the queue refused, a check found something, an item failed, the demo's account did not close
USAGE = 2  # click's own
NOTHING = 3  # get, peek: nothing there (in time); put: no room (in time). Try again later
INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
BROKEN_PIPE = 141  # 128 + SIGPIPE
