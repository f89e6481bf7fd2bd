"""`python -m transom.bench`: the load generator without the rest of the `transom` command."""

from transom.bench.command import app

if __name__ == "__main__":
    app()
