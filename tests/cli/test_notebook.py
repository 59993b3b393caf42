from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "notebooks/quickstart.ipynb"
SMALL = 'DATA = {data!r}\nOUT = "run"\nEPOCHS = 1\nTEACHER = "two-level"\nSTUDENT = "two-level"\nCLASSES = ""\n'


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Jupyter's sockets, of themselves
def test_the_notebook_runs_from_top_to_bottom(scenes: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    settings = next(cell for cell in notebook.cells if cell.source.startswith("DATA ="))
    more = 'MORE = {"crop": 32, "crops_per_image": 2, "split": "0.5/0.1/0.4"}'
    settings.source = SMALL.format(data=str(scenes)) + more
    NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert (tmp_path / "run/student/report.html").exists()
    printed = "".join(str(cell.get("outputs", "")) for cell in notebook.cells)
    assert "The distilled student reaches" in printed
    assert printed.count("image/png") >= 7
