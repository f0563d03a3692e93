# The verbs of the house. `just` comes with the dev extra: .venv/bin/just

set positional-arguments

export PATH := justfile_directory() / ".venv/bin:" + env("PATH")
export PYTHONPATH := justfile_directory()

# list the verbs
default:
    @just --list --unsorted

# make .venv from the lock, with everything that users and developers need
setup python="python3":
    {{python}} -m venv .venv
    .venv/bin/pip install --quiet --no-deps --requirement requirements.lock
    .venv/bin/pip install --quiet --no-deps --editable .

# lay out the code
format:
    ruff format .
    ruff check --fix-only .

# ruff, and zizmor for the workflows
lint:
    ruff format --check .
    ruff check .
    ruff check --preview --select PLW1514 aggregator
    zizmor --offline --strict-collection --quiet .github action.yml

# mypy, strict
types:
    mypy

# a process for each processor, with an embedded AWS of its own
parallel := "--numprocesses auto --maxprocesses 8 --dist worksteal"

# all tests but the exhaustive ones (--all: these too), or those that the arguments choose
test *args:
    python -m pytest {{parallel}} "$@"

# lint, types and tests; CI runs the exhaustive tests as well
check: lint types test

# only the tests that need an AWS: the embedded one, or the one that AGGREGATOR_TEST_ENDPOINT_URL names
e2e *args:
    python -m pytest {{parallel}} -m integration "$@"

# the kill matrix, as a table: this build and the textbook's
matrix:
    python -m tests.support.matrix

# measure this build beside the textbook's and the machine's limits: benchmarks/RESULTS.md
bench *args:
    python -m benchmarks.run "$@"

# where the time of an invocation goes, as a picture
profile *args:
    python -m benchmarks.profile "$@"

# the tests with branch coverage
coverage *args:
    python -m pytest {{parallel}} --cov=aggregator --cov-branch --cov-report=term-missing "$@"

# write contracts/ from the models; --release snapshots what is not released yet
contracts *args:
    python -m aggregator.contracts.gate.publishing contracts "$@"

# refuse a change of contracts/ that breaks somebody, or is not proven to break nobody
contracts-check *args:
    python -m aggregator.contracts.gate contracts "$@"

# write the page that shows the contracts and checks messages: build/contracts.html
contracts-site *file:
    python -m contracts_site "$@"

# write the list of docs/api.md from the code
api:
    python -m deploy.api write

# reject a change of the public API that breaks somebody, unless version and changelog say so
api-check:
    python -m deploy.api check

# write fixtures/ from the factories
fixtures:
    python -m fixtures.generate

# write the tables of docs/scaling.md
scaling:
    python -m tests.documents.test_scaling

# aggregate a folder of files on an AWS of your own
local folder="fixtures/samples" out="bundles":
    aggregator local "{{folder}}" --out "{{out}}"

# wheel and sdist, below dist/; the same commit and Python give the same bytes
dist *args:
    SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}" uv build --quiet --build-constraints deploy/backend.lock --require-build-hashes --clear --out-dir dist "$@"

# the packages for Lambda and the list of what is in them, below build/
build *args:
    python -m deploy.build "$@"

# the same, and layers for functions that are not deployed by our template
layer *args:
    python -m deploy.build --layer "$@"

# build, show what would change in the stack, ask, and change it
deploy stack="data-aggregator" *args:
    python -m deploy.stack deploy "$@"

# show what was changed in the stack by hand, which no change set of a deployment shows
drift stack="data-aggregator" *args:
    python -m deploy.stack drift "$@"

# show what of the stack would go and what stays, ask, and delete it
destroy stack="data-aggregator" *args:
    python -m deploy.stack destroy "$@"

# search for so many seconds for a bundle that breaks the reader (Linux on x86-64)
fuzz seconds="600":
    python -P -m pip install --quiet --no-deps --requirement tests/support/atheris.txt
    python -m tests.support.fuzzing --seconds {{seconds}}

# ask the Python index for known weaknesses in what the locks name; --strict, because what it cannot find out is else no error
audit:
    python -m venv build/audit
    build/audit/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement deploy/audit.lock
    status=0; for lock in requirements.lock aggregator/runtimes/local/embedded.txt deploy/backend.lock; do build/audit/bin/pip-audit --strict --disable-pip --progress-spinner off --requirement "$lock" || status=1; done; exit $status

# write the locks anew; names no package index
lock:
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command "just lock" --extra dev pyproject.toml --output-file requirements.lock
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command "just lock" --constraint requirements.lock pyproject.toml --output-file deploy/requirements.lock
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command "just lock" --constraint requirements.lock --extra worker pyproject.toml --output-file deploy/worker.lock
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command "just lock" --constraint requirements.lock --extra cli pyproject.toml --output-file deploy/cli.lock
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command "just lock" --constraint requirements.lock --extra otel pyproject.toml --output-file deploy/otel.lock
    grep '^awslambdaric==' tests/support/awslambdaric.txt | cut -d' ' -f1 | uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command "just lock" - --output-file tests/support/awslambdaric.txt
    printf 'atheris<3.1\n' | uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command "just lock" - --output-file tests/support/atheris.txt
    grep '^ministack==' aggregator/runtimes/local/embedded.txt | cut -d' ' -f1 | uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command "just lock" - --output-file aggregator/runtimes/local/embedded.txt
    printf 'boto3\ns3fs>=2026\n' | uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command "just lock" - --output-file benchmarks/s3fs.txt
    printf 'hatchling\n' | uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command "just lock" - --output-file deploy/backend.lock
    printf 'pip-audit\n' | uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command "just lock" - --output-file deploy/audit.lock
    printf 'aws-sam-translator\n' | uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command "just lock" - --output-file deploy/tools.lock
