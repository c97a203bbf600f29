"""The server against its own description: `make contract`, or with a schemathesis of one's own:

    python benchmarks/server_contract.py SCHEMATHESIS [OPTION ...]

A tiny recogniser is served; schemathesis makes requests from `/openapi.json`, right ones and wrong ones, and checks
every answer. Exit status that of schemathesis.
"""

import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

from serving import serving

ROOT = Path(__file__).parents[1]
PORT = 8124
CHECKS = (
    *("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance"),
    *("response_schema_conformance", "negative_data_rejection", "unsupported_method", "allow_header_conformance"),
)
"""Not `positive_data_acceptance`: bytes that fit the description are no recording yet."""


def main() -> None:
    sys.path.insert(0, str(ROOT))
    from tests.tiny import save_tiny

    program, *options = sys.argv[1:] or ["schemathesis"]
    with tempfile.TemporaryDirectory() as folder:
        save_tiny(Path(folder) / "tiny")
        with serving(PORT, "--model", f"{folder}/tiny", "--search", "ctc_greedy") as url:
            command = [program, "run", f"{url}/openapi.json", "--checks", ",".join(CHECKS), *options]
            status = subprocess.run(command, check=False).returncode
            urllib.request.urlopen(f"{url}/readyz").close()  # is still there
    sys.exit(status)


if __name__ == "__main__":
    main()
