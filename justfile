export GOMP_SPINCOUNT := "0"
export OMP_WAIT_POLICY := "PASSIVE"

# checks and tests
default: check test

# lint, types, import contracts, generated files
check:
    ruff check .
    ruff format --check .
    mypy
    lint-imports
    python scripts/generate_sync.py --check

test *args:
    pytest {{args}}

# make the sync store of the async one
generate:
    python scripts/generate_sync.py

# the package without extras starts, and loads nothing heavy
bare:
    python -X importtime -c "import memgraph_plugin, sys; assert not {'torch', 'psycopg'} & set(sys.modules)"

bench:
    python benchmarks/store.py
    python benchmarks/turn.py
