"""`python -m tests.support.armed_process api|worker`: the real command, its environment's failpoints armed."""

import os
import runpy
import sys

import msgspec

from tests.support.failpoints import VARIABLE, Armed, arm_all

if __name__ == "__main__":
    arm_all(msgspec.json.decode(os.environ[VARIABLE], type=Armed))
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
