import sys

from tests.support.sandbox import CHILD

sys.path.append(str(CHILD))  # as in a sandbox: its files import each other as top-level modules
