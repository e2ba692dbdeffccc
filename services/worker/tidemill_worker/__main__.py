"""`python -m tidemill_worker`: run one worker."""

from tidemill_common.service import run
from tidemill_common.settings import load
from tidemill_worker.service import Worker
from tidemill_worker.settings import Settings

if __name__ == "__main__":
    run(Worker(load(Settings)))
