"""An import-linter contract type: what a package may import, as a list of what is allowed rather than forbidden."""

from __future__ import annotations

import sys
from typing import Any

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class AllowedContract(Contract):
    """Modules of `source_modules` import the standard library, their own package and what `allowed` names.

    `allowed` holds libraries and packages of ours; `except_modules` are modules with a contract of their own. A
    library that nothing imports any more is a fault too, so that the list stays true.
    """

    source_modules: Any = fields.SetField(subfield=fields.StringField())
    allowed: Any = fields.SetField(subfield=fields.StringField(), required=False, default=frozenset())
    except_modules: Any = fields.SetField(subfield=fields.StringField(), required=False, default=frozenset())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:  # noqa: ARG002 (the interface's)
        """Compare the imports of every source module with the list."""
        sources = {str(name) for name in self.source_modules}
        missing = sorted(sources - graph.modules)
        allowed = {str(name) for name in self.allowed}
        used: set[str] = set()
        refused: list[str] = []
        for module in sorted(m for m in graph.modules if self._is_source(m)):
            for imported in sorted(graph.find_modules_directly_imported_by(module)):
                by = next((name for name in sorted(allowed) if _inside(imported, name)), None)
                if by is not None:
                    used.add(by)
                elif not _standard(imported) and not any(_inside(imported, source) for source in sources):
                    refused.append(f"{module} imports {imported}")
        unused = sorted(allowed - used)
        return ContractCheck(
            kept=not (missing or refused or unused),
            metadata={"missing": missing, "refused": refused, "unused": unused},
        )

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Say what to change."""
        for line in check.metadata["refused"]:
            output.print_error(f"{line}, which is not on its list", bold=False)
        for name in check.metadata["missing"]:
            output.print_error(f"{name} does not exist", bold=False)
        for name in check.metadata["unused"]:
            output.print_error(f"{name} is allowed, and nothing imports it", bold=False)

    def _is_source(self, module: str) -> bool:
        within = any(_inside(module, str(name)) for name in self.source_modules)
        return within and not any(_inside(module, str(name)) for name in self.except_modules)


def _inside(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def _standard(module: str) -> bool:
    return module.partition(".")[0] in sys.stdlib_module_names
