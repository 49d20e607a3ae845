"""Where the command line begins: Ctrl-C ends it in a moment, even while the packages are being loaded."""

from __future__ import annotations

import os
import signal
from typing import Any


def main() -> Any:
    """Run the command of this process."""
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: os._exit(128 + signal.SIGINT))
    from .main import app

    return app()


if __name__ == "__main__":
    main()
