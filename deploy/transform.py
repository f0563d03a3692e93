"""
Run the SAM transform here, for tools that include a template and do not run it, such as AWS CDK.

    python -m deploy.transform build/packaged.yaml > deploy/cdk/template.json

The transform is AWS's own (aws-sam-translator), of the version that `tools.lock` names, in a folder of its own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from aggregator.exceptions import AggregatorError
from aggregator.operations.doctor.template import read
from aggregator.runtimes.local.packages import install

TOOLS = Path(__file__).with_name("tools.lock")

_PROGRAM = """
import json, sys
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
json.dump(Translator({}, Parser()).translate(json.load(sys.stdin), {}), sys.stdout)
"""


def transformed(template: dict[str, Any]) -> dict[str, Any]:
    """
    What CloudFormation makes of a template whose code is in a bucket, as `sam package` leaves it.

    Raises:
        InstallError: the transform cannot be installed.
        subprocess.CalledProcessError: it does not accept the template; its words are in `stderr`.
    """
    tools = install(TOOLS, "aws-sam-translator", called="the SAM transform")
    done = subprocess.run(
        [sys.executable, "-P", "-c", _PROGRAM],
        input=json.dumps(template),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(tools), "AWS_DEFAULT_REGION": "us-east-1"},  # it only asks for one
    )
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def main(arguments: list[str]) -> int:
    """Print the transformed template; the exit status."""
    if len(arguments) != 1:
        return _wrong("usage: python -m deploy.transform TEMPLATE")
    try:
        template = transformed(read(Path(arguments[0])))
    except (AggregatorError, OSError) as error:
        return _wrong(str(error))
    except subprocess.CalledProcessError as error:
        return _wrong(f"{arguments[0]}: {error.stderr.strip().splitlines()[-1]}")
    json.dump(template, sys.stdout, indent=1)
    return 0


def _wrong(message: str) -> int:
    print(message, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
