"""``twistd -ny vault.tac``: the configuration named by ARTIFACT_VAULT_CONFIG, else config.yml beside this file.

Where there is neither, the built-in sample configuration is used.
"""

import os
import sys
from pathlib import Path

from twisted.application.service import Application

from vault.starting import name_sockets, take_signals

take_signals()  # before what takes long to import
name_sockets(os.environ)

from vault.tap import application_stream, make_service

beside = Path(__file__).resolve().parent / "config.yml"
chosen = os.environ.get("ARTIFACT_VAULT_CONFIG") or (str(beside) if beside.exists() else None)

application = Application("artifact-vault")
make_service(chosen, stream=application_stream(sys.argv[1:])).setServiceParent(application)
