"""The self-contained page about a run."""

from common.config import Config
from launch.run_folder import RunFolder
from launch.summary import Summary


def write_report(folder: RunFolder, config: Config, summary: Summary) -> None:
    """Write ``report.html``."""
    folder.report.write_text(f"<title>{summary.name}</title>")
