"""Limits: every bound of fastnet, with its unit and the argument for its value.

Facts. A server without a bound has one anyway, the host's memory or descriptors, and reaches it at
the worst moment.
Decision: each bound is defined in this folder once, by name and unit, in the file of what it
bounds; most of them are options of the command line, and both twins get them as arguments.
Relations between bounds are asserted at the end of each file, so that a change that breaks one
fails at import.
"""

from fastnet.limits.chat import *
from fastnet.limits.dictionary import *
from fastnet.limits.exec import *
from fastnet.limits.server import *
from fastnet.limits.transfer import *
from fastnet.limits.units import *
