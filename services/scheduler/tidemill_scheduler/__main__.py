"""`python -m tidemill_scheduler`: run one replica of the scheduler."""

from tidemill_common.service import run
from tidemill_common.settings import load
from tidemill_scheduler.service import Scheduler
from tidemill_scheduler.settings import Settings

if __name__ == "__main__":
    run(Scheduler(load(Settings)))
