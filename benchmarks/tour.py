"""Execute the notebook docs/tour.ipynb in an empty folder, and write it back with its outputs.

    python benchmarks/tour.py

Needs nbclient and ipykernel (the extra `test`), and no network.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parent.parent / "docs" / "tour.ipynb"
TIMEOUT_S = 300  # for one cell
VARIABLES = ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR")


def executed(notebook: Path, folder: Path) -> nbformat.NotebookNode:
    """The notebook after a run of all cells in `folder`, where Jupyter's own files go, too.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    for name in VARIABLES:
        os.environ[name] = str(folder / ".jupyter")
    content = nbformat.read(notebook, as_version=4)
    work = folder / "work"
    work.mkdir()
    client = NotebookClient(
        content,
        timeout=TIMEOUT_S,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(work)}},
    )
    client.execute()
    for cell in content.cells:
        if cell.cell_type == "code":  # progress and warnings of this machine are left out
            cell.outputs = [each for each in cell.outputs if each.get("name") != "stderr"]
    content.metadata["language_info"] = {"name": "python"}  # without the version of one machine
    return content


def main() -> None:
    """Execute docs/tour.ipynb in place."""
    with tempfile.TemporaryDirectory() as folder:
        nbformat.write(executed(NOTEBOOK, Path(folder)), NOTEBOOK)


if __name__ == "__main__":
    main()
