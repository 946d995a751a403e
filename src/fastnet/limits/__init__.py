"""Every bound of fastnet, with its unit and the argument for its size.

Facts. A server without a bound has one anyway: the host's memory or descriptors, found at the worst
moment.
Decision: each bound stands in this folder once, by name and unit, in the file of what it bounds;
the command line can change most of them, and both twins receive them from here as arguments.
Relations between bounds are asserted at the end of each file, so that a change that breaks one
fails at import.
"""

from fastnet.limits.chat import *
from fastnet.limits.dictionary import *
from fastnet.limits.exec import *
from fastnet.limits.server import *
from fastnet.limits.transfer import *
from fastnet.limits.units import *
